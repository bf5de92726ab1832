"""Several teachers as one, against the definitions."""

from __future__ import annotations

import torch
from torch import nn

from rlkd_env.models.ensemble import Teachers


def teachers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(12, 5)) for _ in range(3)]


def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities_at_every_temperature() -> None:
    networks, images = teachers(), torch.randn(4, 3, 2, 2)
    found = Teachers(networks)(images)
    for temperature in (0.5, 1.0, 6.0):
        product = torch.stack([(one(images) / temperature).softmax(dim=1) for one in networks]).log().mean(dim=0).exp()
        torch.testing.assert_close((found / temperature).softmax(dim=1), product / product.sum(dim=1, keepdim=True))


def test_the_surer_a_teacher_is_of_an_image_the_more_it_counts() -> None:
    networks, images = teachers(), torch.randn(4, 3, 2, 2)
    with torch.no_grad():
        found = Teachers(networks, "entropy")(images)
    for number in range(4):
        logits = [one(images)[number].detach() for one in networks]
        entropies = [float(-(values.softmax(0) * values.log_softmax(0)).sum()) for values in logits]
        weights = torch.tensor([-entropy for entropy in entropies]).softmax(0)
        expected = sum(weight * values for weight, values in zip(weights, logits, strict=True))
        torch.testing.assert_close(found[number], expected)
