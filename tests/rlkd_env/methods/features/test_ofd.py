"""OFD's margins, its partial loss and its sum over stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, frozen_teacher, pair_of, real_outputs
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.ofd import negative_margins, partial_loss


def norm_with(weight: list[float], bias: list[float]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(weight)).double()
    norm.load_state_dict({**norm.state_dict(), "weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return norm


def test_a_margin_is_the_mean_of_negative_draws() -> None:
    margins = negative_margins(norm_with([1.0, -2.0, 0.5], [0.0, 1.5, -1.0]))
    draws = np.random.default_rng(0).standard_normal(400_000)
    for margin, deviation, mean in zip(margins.tolist(), [1.0, 2.0, 0.5], [0.0, 1.5, -1.0], strict=True):
        values = mean + deviation * draws
        assert margin == pytest.approx(values[values < 0].mean(), abs=0.01)
    assert negative_margins(norm_with([0.5], [9.0])).item() == -1.5  # hardly ever negative: three deviations


def test_what_the_teachers_sign_leaves_over_costs_nothing() -> None:
    #          below both, above a negative one, above the margin of a lower one, below it, positive: either way
    student = [-2.0, 0.5, 0.5, -3.0, 1.0, 3.0]
    teacher = [-0.5, -0.5, -4.0, -4.0, 2.0, 2.0]
    found = [
        partial_loss(torch.tensor(s).view(1, 1, 1, 1), torch.tensor(t).view(1, 1, 1, 1), torch.tensor([-1.0])).item()
        for s, t in zip(student, teacher, strict=True)
    ]
    assert found == [0.0, 1.0, 2.25, 0.0, 1.0, 1.0]


def test_the_last_stage_counts_whole_and_the_one_before_it_half() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs, method = real_outputs(6, student, teacher), create_method("ofd", pair_of(student, teacher))
    stages = [
        partial_loss(adapter(s), t, negative_margins(stage[1]))
        for adapter, s, t, stage in zip(
            method.adapters,
            outputs.student_features.preactivations,
            outputs.teacher_features.preactivations,
            teacher.stages,
            strict=True,
        )
    ]
    torch.testing.assert_close(method.feature_losses(outputs)["ofd"], 1e-3 * (stages[0] / 2 + stages[1]))


def test_networks_without_preactivations_or_batch_norms_are_refused() -> None:
    teacher = frozen_teacher()
    with pytest.raises(UsageError, match="'ofd' needs networks with feature maps; the student has none"):
        create_method("ofd", pair_of(FlatNetwork(), teacher))
    for stage in teacher.stages:
        stage[1] = nn.Identity()
    with pytest.raises(UsageError, match="takes its margins from the batch norms"):
        create_method("ofd", pair_of(SmallNetwork((4, 5)), teacher))
    student = SmallNetwork((4, 5))
    student.taps = type(student.taps)(student.taps.stages, (), student.taps.classifier)
    with pytest.raises(UsageError, match="which the student's taps do not name"):
        create_method("ofd", pair_of(student, frozen_teacher()))
