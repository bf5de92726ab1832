"""Features of an instance's state against hand-worked values and their bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from rlkd_env.data.boxes import Boxes, Regions
from rlkd_env.errors import UsageError
from rlkd_env.instances.features import FEATURES
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.state import InstanceState
from rlkd_env.utils.choices import PAPER_FEATURES


def worked_example() -> InstanceOutputs:
    """Two instances of three classes with probabilities that can be worked by hand."""
    student = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
    teacher = torch.tensor([[0.9, 0.05, 0.05], [0.25, 0.25, 0.5]]).log()
    return InstanceOutputs(student, teacher, torch.tensor([0, 1]), progress=0.25)


def proposals(objectness: list[float], overlap: list[float]) -> Regions:
    """Regions of one image without boxes."""
    count = len(objectness)
    boxes = Boxes(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.bool))
    images = torch.zeros(count, dtype=torch.int64)
    return Regions(torch.zeros(count, 4), images, torch.tensor(objectness), torch.tensor(overlap), boxes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("teacher_performance", [0.9, 0.25]),
        ("student_performance", [0.5, 0.1]),
        ("student_uncertainty", [0.2, 0.7]),  # top-1 minus top-2, not minus the smallest but one
        ("teacher_uncertainty", [0.85, 0.25]),
        ("progress", [0.25, 0.25]),
        ("student_cross_entropy", [-math.log(0.5), -math.log(0.1)]),
        ("teacher_cross_entropy", [-math.log(0.9), -math.log(0.25)]),
        (
            "student_entropy",
            [
                -sum(p * math.log(p) for p in (0.5, 0.3, 0.2)) / math.log(3),
                -sum(p * math.log(p) for p in (0.1, 0.1, 0.8)) / math.log(3),
            ],
        ),
        (
            "divergence",
            [
                0.9 * math.log(0.9 / 0.5) + 0.05 * math.log(0.05 / 0.3) + 0.05 * math.log(0.05 / 0.2),
                0.25 * math.log(2.5) + 0.25 * math.log(2.5) + 0.5 * math.log(0.5 / 0.8),
            ],
        ),
        ("agreement", [1.0, 1.0]),
        ("teacher_correct", [1.0, 0.0]),
        ("student_correct", [1.0, 0.0]),
    ],
)
def test_feature_equals_the_hand_worked_value(name: str, expected: list[float]) -> None:
    state = InstanceState([name])(worked_example())
    torch.testing.assert_close(state[:, 0], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_logit_spread_is_the_population_deviation() -> None:
    outputs = InstanceOutputs(torch.tensor([[0.0, 2.0]]), torch.tensor([[-3.0, 3.0]]), torch.tensor([0]))
    torch.testing.assert_close(
        InstanceState(["student_logit_spread", "teacher_logit_spread"])(outputs), torch.tensor([[1.0, 3.0]])
    )


def test_the_default_state_is_the_papers() -> None:
    assert (
        InstanceState().names
        == PAPER_FEATURES
        == (
            "teacher_performance",
            "student_performance",
            "student_uncertainty",
            "progress",
        )
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4, 50.0, math.inf, -math.inf, math.nan]), min_size=6, max_size=6),
    st.integers(0, 2),
)
def test_every_feature_stays_finite_and_within_its_bounds(values: list[float], label: int) -> None:
    logits = torch.tensor(values).view(2, 3)
    regions = proposals(objectness=values[:2], overlap=values[2:4])
    outputs = InstanceOutputs(logits, logits.flip(0), torch.tensor([label, 2 - label]), regions=regions)
    state = InstanceState(list(FEATURES))
    observed = state(outputs)
    assert observed.isfinite().all()
    assert ((observed >= state.low) & (observed <= state.high)).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["student_performence"], "Did you mean 'student_performance'"),
        ([], "at least one"),
        (["progress", "progress"], "twice"),
    ],
)
def test_bad_feature_lists_are_refused(features: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InstanceState(features)


def test_regions_have_objectness_and_overlap_beside_the_features_of_images() -> None:
    outputs = replace(worked_example(), regions=proposals(objectness=[1.0, 0.125], overlap=[0.75, 0.0]))
    state = InstanceState(["progress", "objectness", "overlap"])
    state.check(has_regions=True)
    torch.testing.assert_close(state(outputs), torch.tensor([[0.25, 1.0, 0.75], [0.25, 0.125, 0.0]]))


@pytest.mark.parametrize("name", ["objectness", "overlap"])
def test_whole_images_have_no_features_of_regions(name: str) -> None:
    state = InstanceState(["progress", name])
    with pytest.raises(UsageError, match="those of region proposals: choose a data set with boxes, or other features"):
        state.check(has_regions=False)
    with pytest.raises(UsageError, match="those of region proposals"):
        state(worked_example())
    InstanceState().check(has_regions=False)
