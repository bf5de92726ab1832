"""ReviewKD: its loss of several sizes, its fusion, and the order in which stages are reviewed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.methods import create_method
from rlkd_env.methods.features.reviewkd import AttentionFusion, hierarchical_context_loss


@pytest.mark.parametrize(("size", "levels"), [(8, (4, 2, 1)), (4, (2, 1)), (2, (1,)), (1, ())])
def test_the_loss_is_a_weighted_mean_over_sizes(size: int, levels: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, size, size, generator=generator, dtype=torch.float64)
    difference, total, weights, weight = (student - teacher).numpy(), 0.0, 0.0, 1.0
    for side in (size, *levels):
        cells = difference.reshape(3, 4, side, size // side, side, size // side).mean(axis=(3, 5))
        total, weights, weight = total + weight * (cells**2).mean(axis=(1, 2, 3)), weights + weight, weight / 2
    np.testing.assert_allclose(hierarchical_context_loss(student, teacher), total / weights, rtol=1e-12)


def test_what_is_behind_is_enlarged_and_weighed_position_by_position() -> None:
    fusion = AttentionFusion(3, 2, 5, fuses=True).eval()
    torch.nn.init.zeros_(fusion.weigh.weight)
    fusion.weigh.bias.data = torch.tensor([0.0, 100.0])
    maps, behind = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 2, 2)
    adapted, fused = fusion(maps, behind, (8, 8))
    expected = 0.5 * fusion.reduce(maps) + behind.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert adapted.shape == (2, 5, 8, 8)
    torch.testing.assert_close(fused, expected.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_a_stage_is_compared_with_what_is_behind_it_but_not_with_what_is_before() -> None:
    student, teacher = SmallNetwork((4, 5, 6)), frozen_teacher((6, 8, 7))
    method, outputs = create_method("reviewkd", pair_of(student, teacher)), real_outputs(6, student, teacher)
    teachers, own = outputs.teacher_features, outputs.student_features
    leaves = [maps.detach().requires_grad_(True) for maps in (*own.stages, own.pooled)]
    apart = replace(own, stages=tuple(leaves[:-1]), pooled=leaves[-1])
    doubled = tuple(maps * (1 + (number == 1)) for number, maps in enumerate(teachers.preactivations))
    losses = [
        method.feature_losses(replace(outputs, student_features=apart, teacher_features=features))["reviewkd"].sum()
        for features in (replace(teachers, preactivations=doubled), teachers)
    ]
    gradients = torch.autograd.grad(losses[0] - losses[1], leaves)  # that of the middle stage alone differs
    assert [bool(gradient.abs().max() > 1e-4) for gradient in gradients] == [False, True, True, True]


def test_the_term_is_warmed_up() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method, outputs = create_method("reviewkd", pair_of(student, teacher)), real_outputs(6, student, teacher)
    whole, first = (method.feature_losses(replace(outputs, epoch=e))["reviewkd"] for e in (30.0, 4.5))
    torch.testing.assert_close(first, whole * 5 / 20)
