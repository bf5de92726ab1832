"""Neuron selectivity transfer against its definition in loops."""

from __future__ import annotations

import numpy as np
import torch

from rlkd_env.methods.features.nst import selectivity_loss


def discrepancy(student: np.ndarray, teacher: np.ndarray) -> float:
    def mean_kernel(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean([[(a @ b) ** 2 for b in second] for a in first]))

    student, teacher = (
        [row / np.sqrt(row @ row) for row in maps.reshape(len(maps), -1)] for maps in (student, teacher)
    )
    return mean_kernel(teacher, teacher) + mean_kernel(student, student) - 2 * mean_kernel(student, teacher)


def test_it_is_the_discrepancy_of_the_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 4, 3, 3, generator=generator, dtype=torch.float64)
    expected = [discrepancy(*both) for both in zip(student.numpy(), teacher.numpy(), strict=True)]
    np.testing.assert_allclose(selectivity_loss(student, teacher), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda maps: selectivity_loss(maps, teacher), student.requires_grad_(True))


def test_the_order_and_scale_of_channels_do_not_matter_and_the_same_maps_cost_nothing() -> None:
    maps = torch.rand(3, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(selectivity_loss(3.0 * maps.flip(1), maps), torch.zeros(3).double(), rtol=0, atol=1e-14)
