"""Rules that are a line of arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rule_outputs import SETTING, outputs

from agents.rules.create import RuleSetting, create_rule
from agents.rules.simple import FixedTemperature
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs


def test_the_fixed_rule_gives_every_instance_the_same_temperature() -> None:
    outputs = InstanceOutputs(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64))
    temperature = FixedTemperature(2.5)(outputs)
    assert temperature.student.tolist() == temperature.teacher.tolist() == [2.5] * 5
    for impossible in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError):
            FixedTemperature(impossible)


def drawn(name: str, options: dict[str, Any], steps: int = 40) -> np.ndarray:
    rule = create_rule(name, options, SETTING)
    return np.concatenate([rule(outputs(500, step=step)).student.numpy() for step in range(steps)])


@pytest.mark.parametrize(
    ("name", "options", "to_uniform"),
    [
        ("random", {"scale": "linear"}, lambda t: (t - 0.5) / 7.5),
        ("random", {}, lambda t: np.log(t / 0.5) / math.log(16)),
        ("random", {"low": 2, "high": 3}, lambda t: np.log(t / 2) / math.log(1.5)),
        ("public_agent", {}, lambda t: normal_share(np.log(t / (10 - t)) / 0.6)),
    ],
)
def test_random_rules_draw_from_their_distribution(
    name: str, options: dict[str, Any], to_uniform: Callable[[np.ndarray], np.ndarray]
) -> None:
    shares = np.sort(to_uniform(drawn(name, options)))
    assert np.abs(shares - np.arange(0.5, len(shares)) / len(shares)).max() < 1.63 / math.sqrt(len(shares))  # 1 %


def normal_share(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: (1 + math.erf(value / math.sqrt(2))) / 2)(values)


@pytest.mark.parametrize("name", ["random", "public_agent"])
def test_random_temperatures_follow_from_seed_and_step(name: str) -> None:
    rule = create_rule(name, setting=SETTING)
    first, other = rule(outputs(step=5)).student, rule(outputs(step=6)).student
    torch.rand(3)  # nobody else's draws change anything
    torch.testing.assert_close(rule(outputs(step=5)).student, first, rtol=0, atol=0)
    torch.testing.assert_close(create_rule(name, setting=SETTING)(outputs(step=5)).student, first, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(first, create_rule(name, setting=RuleSetting(seed=8))(outputs(step=5)).student)
