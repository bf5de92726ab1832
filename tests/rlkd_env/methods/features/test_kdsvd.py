"""KDSVD against its definition, with NumPy's decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.kdsvd import correlations_loss


def vectors(maps: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    _, values, rows = np.linalg.svd(maps.reshape(-1, maps.shape[-1]), full_matrices=False)
    return values[:count] / np.linalg.norm(values[:count]), rows[:count]


def by_definition(maps: list[tuple[np.ndarray, np.ndarray]], count: int) -> float:
    """The loss of one instance, in loops over stages, vectors and their entries."""
    chosen = []
    for student, teacher in maps:
        values, of_teacher = vectors(teacher, count)
        of_teacher = np.array([row if row.sum() >= 0 else -row for row in of_teacher])
        of_student = []
        for row in of_teacher:
            candidates = vectors(student, count + 3)[1]
            best = max(candidates, key=lambda candidate: abs(candidate @ row))
            of_student.append(best * np.sign(best @ row))
        chosen.append((np.array(of_student) * values[:, None], of_teacher * values[:, None]))
    total = 0.0
    for (student, teacher), (student_before, teacher_before) in zip(chosen[1:], chosen, strict=False):
        for k in range(count):
            for i in range(student.shape[1]):
                for j in range(student_before.shape[1]):
                    of_student = np.exp(-((student[k, i] - student_before[k, j]) ** 2) / 8)
                    total += (of_student - np.exp(-((teacher[k, i] - teacher_before[k, j]) ** 2) / 8)) ** 2
    return total


@pytest.mark.parametrize("count", [1, 2])
def test_it_compares_the_correlations_of_neighbouring_stages(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 5, 5), (3, 4, 4), (4, 2, 2)]
    stages = [
        tuple(torch.rand(2, channels * times, height, width, generator=generator).double() for times in (1, 2))
        for channels, height, width in sizes
    ]
    expected = [by_definition([(s[n].numpy(), t[n].numpy()) for s, t in stages], count) for n in range(2)]
    np.testing.assert_allclose(correlations_loss(stages, count), expected, rtol=1e-10)


def test_equal_singular_values_and_empty_maps_give_finite_gradients() -> None:
    maps = [torch.zeros(2, 3, 4, 4), torch.eye(4).expand(2, 3, 4, 4).clone()]
    for student in maps:
        student.requires_grad_(True)
    teacher = torch.rand(2, 3, 4, 4)
    correlations_loss([(maps[0], teacher), (maps[1], teacher)], 1).sum().backward()
    assert all(student.grad.isfinite().all() for student in maps)


def test_a_single_stage_is_refused() -> None:
    with pytest.raises(UsageError, match="two stages or more"):
        create_method("kdsvd", pair_of(SmallNetwork((4,)), frozen_teacher()))
