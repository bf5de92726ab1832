"""RKD against its definition in loops over pairs and triples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.methods import create_method
from rlkd_env.methods.relations.rkd import angle_loss, distance_loss


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def distances(features: np.ndarray) -> np.ndarray:
    values = np.array([[np.linalg.norm(a - b) for b in features] for a in features])
    return values / values[values > 0].mean()


def cosine(features: np.ndarray, i: int, j: int, k: int) -> float:
    first, second = features[j] - features[i], features[k] - features[i]
    sizes = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / sizes) if sizes else 0.0


@pytest.mark.parametrize("n", [2, 6])
def test_distances_and_angles_are_those_of_the_definition_row_by_row(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    student = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    teacher = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    s, t = student.numpy(), teacher.numpy()
    of_distances = [np.mean([huber(x) for x in row]) for row in distances(s) - distances(t)]
    of_angles = [
        np.mean([huber(cosine(s, i, j, k) - cosine(t, i, j, k)) for j in range(n) for k in range(n)]) for i in range(n)
    ]
    np.testing.assert_allclose(distance_loss(student, teacher), of_distances, rtol=1e-9)
    np.testing.assert_allclose(angle_loss(student, teacher), of_angles, rtol=1e-9)
    for loss in (distance_loss, angle_loss):
        assert torch.autograd.gradcheck(lambda f, loss=loss: loss(f, teacher), student.clone().requires_grad_(True))


def test_images_with_the_same_features_give_finite_gradients() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    (distance_loss(student, torch.rand(4, 3)) + angle_loss(student, torch.rand(4, 3))).sum().backward()
    assert student.grad.isfinite().all()


def test_each_term_has_its_weight() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs = real_outputs(5, student, teacher)
    pooled = outputs.student_features.pooled, outputs.teacher_features.pooled
    parts = create_method("rkd", pair_of(student, teacher), feature_weight=2.0).feature_losses(outputs)
    torch.testing.assert_close(parts["rkd_distance"], 50.0 * distance_loss(*pooled))
    torch.testing.assert_close(parts["rkd_angle"], 100.0 * angle_loss(*pooled))
