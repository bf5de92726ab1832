"""Attention transfer against its definition, written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.at import attention_loss


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt((values**2).sum())


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_it_is_the_difference_of_unit_attention_maps(power: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 5, 2, 2, generator=generator, dtype=torch.float64)
    expected = []
    for of_student, of_teacher in zip(student.numpy(), teacher.numpy(), strict=True):
        pooled = of_student.reshape(2, 2, 2, 2, 2).mean(axis=(2, 4))
        maps = [unit((np.abs(values) ** power).sum(axis=0)) for values in (pooled, of_teacher)]
        expected.append(((maps[0] - maps[1]) ** 2).sum() / 4)
    np.testing.assert_allclose(attention_loss(student, teacher, power), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda maps: attention_loss(maps, teacher, power), student.requires_grad_(True))


def test_all_stages_count_and_the_scale_of_a_map_does_not() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs = real_outputs(4, student, teacher)
    maps = zip(outputs.student_features.stages, outputs.teacher_features.stages, strict=True)
    expected = sum(attention_loss(7.0 * of_student, of_teacher) for of_student, of_teacher in maps)
    term = create_method("at", pair_of(student, teacher)).feature_losses(outputs)["at"]
    torch.testing.assert_close(term, 1000.0 * expected)


def test_a_power_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UsageError, match="power must be positive"):
        create_method("at", pair_of(SmallNetwork((4, 5)), frozen_teacher()), power=0.0)
