"""FitNet's regressor and its loss."""

from __future__ import annotations

import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.fitnet import regressor


@pytest.mark.parametrize("student", [(3, 8, 8), (3, 4, 4), (3, 2, 2), (3, 7, 6), (3, 16, 8)])
def test_maps_get_the_channels_and_the_size_of_the_teachers(student: tuple[int, int, int]) -> None:
    assert regressor(student, (5, 4, 4))(torch.zeros(2, *student)).shape == (2, 5, 4, 4)


def test_smaller_maps_of_another_size_and_missing_stages_are_refused() -> None:
    with pytest.raises(UsageError, match="map of 3 x 3 to the teacher's 4 x 4: choose another stage"):
        regressor((2, 3, 3), (2, 4, 4))
    with pytest.raises(UsageError, match="'fitnet' takes stage 2, but the student has only 2: set stage"):
        create_method("fitnet", pair_of(SmallNetwork((4, 5)), frozen_teacher()), stage=2)


@pytest.mark.parametrize("stage", [-2, -1])
def test_the_loss_is_the_mean_squared_difference_of_the_stages_maps(stage: int) -> None:
    student, teacher = SmallNetwork((4, 5)).double(), frozen_teacher().double()
    method = create_method("fitnet", pair_of(student.float(), teacher.float()), stage=stage).double()
    outputs = real_outputs(6, student.double(), teacher.double(), torch.float64)
    convolution, norm, _ = method.regressor
    hidden = torch.nn.functional.conv2d(outputs.student_features.stages[stage], convolution.weight, convolution.bias)
    deviation = hidden.var(dim=(0, 2, 3), keepdim=True, correction=0) + norm.eps
    regressed = ((hidden - hidden.mean(dim=(0, 2, 3), keepdim=True)) / deviation.sqrt()).clamp(min=0)
    expected = (regressed - outputs.teacher_features.stages[stage]).pow(2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(method.feature_losses(outputs)["fitnet"], 100.0 * expected)
