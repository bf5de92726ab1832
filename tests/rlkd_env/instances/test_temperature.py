"""Ranges of temperatures and the map from actions to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.temperature import TemperatureRange, resolve_range


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((1, 10), (1, 10)), (("0.125s", "4s"), (1.0, 32.0)), (("2", "1S"), (2.0, 8.0)), ((" 0.5 ", 0.5), (0.5, 0.5))],
)
def test_bounds_are_absolute_or_in_logit_deviations(bounds: tuple, expected: tuple[float, float]) -> None:
    resolved = resolve_range(*bounds, teacher_deviation=8.0)
    assert (resolved.minimum, resolved.maximum) == expected


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((0, 4), "positive"),
        ((-1, 4), "positive"),
        ((5, 4), "empty"),
        (("0.5s", 1), "empty"),
        ((1, "inf"), "must be positive and finite"),
        (("nan", 4), "positive"),
        (("warm", 4), "'warm' is no temperature"),
        (("s", 4), "'s' is no temperature"),
    ],
)
def test_impossible_ranges_are_refused(bounds: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_range(*bounds, teacher_deviation=8.0)


@given(st.floats(0.05, 5), st.floats(1, 50), st.floats(-1, 1), st.sampled_from(["log", "linear"]))
def test_action_map_is_a_bijection_onto_its_range(low: float, ratio: float, action: float, scale: str) -> None:
    mapping = ActionMap(TemperatureRange(low, low * ratio), scale)
    temperature = float(mapping.to_temperature(np.array([action]))[0])
    assert low * (1 - 1e-12) <= temperature <= low * ratio * (1 + 1e-12)
    if ratio > 1.001:
        share = math.log(temperature / low, ratio) if scale == "log" else (temperature - low) / (low * (ratio - 1))
        assert 2 * share - 1 == pytest.approx(action, abs=1e-6)


def test_log_scale_centres_on_the_geometric_mean_and_linear_on_the_mean() -> None:
    bounds = TemperatureRange(1.0, 16.0)
    centre = torch.zeros(3)
    torch.testing.assert_close(ActionMap(bounds, "log").to_temperature(centre), torch.full((3,), 4.0))
    torch.testing.assert_close(ActionMap(bounds, "linear").to_temperature(centre), torch.full((3,), 8.5))


def test_actions_outside_the_unit_range_are_clipped() -> None:
    mapping = ActionMap(TemperatureRange(1.0, 16.0))
    np.testing.assert_allclose(mapping.to_temperature(np.array([-7.0, 7.0])), [1.0, 16.0])


def test_a_range_of_one_temperature_maps_every_action_to_it() -> None:
    mapping = ActionMap(TemperatureRange(4.0, 4.0))
    np.testing.assert_allclose(mapping.to_temperature(np.array([-1.0, 0.3])), 4.0)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="Valid: linear, log"):
        ActionMap(TemperatureRange(1.0, 2.0), "logarithmic")
