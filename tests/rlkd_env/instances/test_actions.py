"""Actions around a rule: what they multiply, how far they may take it, and the action 0."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from agents.rules.create import create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.methods import kd_loss

WIDE = TemperatureRange(1e-3, 1e3)
FUNCTIONS = ("fixed", "linear", "cosine", "entropy", "difficulty", "lskd", "normkd", "ttm", "wttm", "dtkd")


def outputs(count: int = 40, dtype: torch.dtype = torch.float64) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3.0 * torch.randn(2, count, 10, generator=generator, dtype=dtype)
    return InstanceOutputs(student.requires_grad_(True), teacher, torch.arange(count) % 10, progress=0.3)


def values(temperature: Temperature) -> list[Tensor]:
    return [value for value in (temperature.teacher, temperature.student, temperature.factor) if value is not None]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("bounds", [WIDE, TemperatureRange(2.9, 3.0)])
def test_the_action_0_gives_the_rules_temperatures_bit_for_bit(
    name: str, columns: int, bounds: TemperatureRange
) -> None:
    rule, batch = create_rule(name), outputs(dtype=torch.float32)
    chosen = ResidualMap(rule, bounds).temperature(torch.zeros(40, columns), batch)
    expected = rule(batch)
    assert len(values(chosen)) == len(values(expected))
    for one, other in zip(values(chosen), values(expected), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"), [("lskd", "tau"), ("normkd", "tau"), ("dtkd", "tau"), ("fixed", "temperature")]
)
@given(action=st.floats(-1, 1))
def test_around_a_rule_with_a_base_temperature_the_action_multiplies_that(
    name: str, option: str, action: float
) -> None:
    """Factors included: LSKD's is τ², NormKD's T², the others' T_student · T_teacher."""
    batch, width = outputs(), math.log(3.0)
    chosen = ResidualMap(create_rule(name, {option: 2.0}), WIDE, width, "free").temperature(
        torch.full((40, 1), action, dtype=torch.float64), batch
    )
    expected = create_rule(name, {option: 2.0 * 3.0**action})(batch)
    for one, other in zip(values(chosen), values(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0.0)
    losses = [kd_loss(batch.student_logits, batch.teacher_logits, each) for each in (chosen, expected)]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)


def test_two_numbers_multiply_teacher_and_student_apart() -> None:
    batch, rule = outputs(), create_rule("lskd")
    action = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    chosen, of_rule = ResidualMap(rule, WIDE, 0.7, "free").temperature(action, batch), rule(batch)
    of_teacher, of_student = (0.7 * action).exp().unbind(dim=1)
    torch.testing.assert_close(chosen.teacher, of_rule.teacher * of_teacher)
    torch.testing.assert_close(chosen.student, of_rule.student * of_student)
    torch.testing.assert_close(chosen.factor, 4.0 * of_teacher * of_student)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_level_of_every_run_stays_that_of_the_rule(columns: int) -> None:
    """What differs between the instances of a run is the agent's; what they have in common is not."""
    batch = dataclasses.replace(outputs(), num_runs=2)
    rule, width = create_rule("anneal"), math.log(2.0)
    generator = torch.Generator().manual_seed(1)
    action = 0.3 * torch.rand(40, columns, dtype=torch.float64, generator=generator) - 0.5
    chosen, of_rule = ResidualMap(rule, WIDE, width).temperature(action, batch), rule(batch)
    for own, others in ((chosen.teacher, of_rule.teacher), (chosen.student, of_rule.student)):
        by_run = (own / others).log().unflatten(0, (2, 20))
        torch.testing.assert_close(by_run.mean(1), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    ratio = (chosen.teacher / of_rule.teacher).log().unflatten(0, (2, 20))
    expected = width * action[:, 0].unflatten(0, (2, 20))
    torch.testing.assert_close(ratio.diff(dim=1), expected.diff(dim=1))
    moved = ResidualMap(rule, WIDE, width).temperature(action + 0.4, batch)
    torch.testing.assert_close(moved.student, chosen.student)


@given(temperature=st.floats(0.2, 40), action=st.floats(-3, 3))
def test_the_range_bounds_what_the_action_does_but_not_the_rule(temperature: float, action: float) -> None:
    bounds = TemperatureRange(1.0, 10.0)
    residual = ResidualMap(create_rule("fixed", {"temperature": temperature}), bounds, math.log(4.0), "free")
    chosen = residual.temperature(torch.full((40, 1), action, dtype=torch.float64), outputs())
    wanted = temperature * 4.0 ** min(max(action, -1.0), 1.0)
    expected = min(max(wanted, min(1.0, temperature)), max(10.0, temperature))
    torch.testing.assert_close(chosen.student, torch.full_like(chosen.student, expected))
    assert chosen.is_shared


def test_a_students_own_scale_does_not_run_into_the_teachers_range() -> None:
    """A student's logits are small at first; LSKD's temperature for them lies below the range of the teacher's."""
    batch = outputs()
    small = batch.with_student_logits(0.01 * batch.student_logits.detach())
    bounds = TemperatureRange(1.0, 20.0)
    residual = ResidualMap(create_rule("lskd"), bounds, math.log(1.5), "free")
    rule = create_rule("lskd")(small)
    assert rule.student.max() < 0.1
    assert rule.teacher.min() > 1.5
    chosen = residual.temperature(torch.full((40, 1), -1.0, dtype=torch.float64), small)
    torch.testing.assert_close(rule.student / chosen.student, torch.full_like(rule.student, 1.5))
    torch.testing.assert_close(rule.teacher / chosen.teacher, torch.full_like(rule.student, 1.5))


def test_the_gradient_through_the_rule_is_kept() -> None:
    batch = outputs()
    residual = ResidualMap(create_rule("lskd"), WIDE, math.log(2.0), "free")
    assert residual.has_gradient
    chosen = residual.temperature(torch.ones(40, 1, dtype=torch.float64), batch)
    expected = create_rule("lskd", {"tau": 4.0})(batch)
    gradients = [
        torch.autograd.grad(kd_loss(batch.student_logits, batch.teacher_logits, each).sum(), batch.student_logits)[0]
        for each in (chosen, expected)
    ]
    torch.testing.assert_close(*gradients)
    assert not ResidualMap(create_rule("lskd", {"gradient": False}), WIDE).has_gradient
    assert not ResidualMap(lambda given: Temperature.shared(given.labels.double()), WIDE).has_gradient


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    rule: Any = create_rule("fixed")
    with pytest.raises(UsageError, match="width around a rule must be positive"):
        ResidualMap(rule, WIDE, width)
    unknown: Any = "up"
    with pytest.raises(UsageError, match="unknown level 'up'"):
        ResidualMap(rule, WIDE, level=unknown)
