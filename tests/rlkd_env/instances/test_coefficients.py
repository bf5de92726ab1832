"""The rule of a few coefficients around the annealed schedule, and the context that they are chosen from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from coefficient_runs import level
from hypothesis import given, settings, strategies as st

from rlkd_env.errors import UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.features import FEATURES
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import AnnealedTemperature
from rlkd_env.instances.temperature import Temperature, TemperatureRange

ALL = tuple(name for name, feature in FEATURES.items() if not feature.needs_regions)
scales = st.floats(0.02, 50.0)
seeds = st.integers(0, 2**31)
progresses = st.floats(0.0, 1.0)


def outputs(
    num_runs: int = 1, batch_size: int = 32, classes: int = 10, seed: int = 0, progress: float = 0.25
) -> InstanceOutputs:
    """Students that know part of what their teachers know, who are mostly right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (num_runs * batch_size,), generator=generator)
    noise, own = torch.randn(2, num_runs * batch_size, classes, generator=generator)
    teacher = 4.0 * noise + 6.0 * torch.nn.functional.one_hot(labels, classes)
    return InstanceOutputs(0.5 * teacher + own, teacher, labels, progress, num_runs=num_runs)


def changed(given: InstanceOutputs, scale: float = 1.0, shift: float = 0.0) -> InstanceOutputs:
    student, teacher = (scale * logits + shift for logits in (given.student_logits, given.teacher_logits))
    return InstanceOutputs(student, teacher, given.labels, given.progress, num_runs=given.num_runs)


def weights(rule: CoefficientRule, count: int = 1, size: float = 0.5) -> torch.Tensor:
    draws = np.random.default_rng(0).uniform(-size, size, (count, rule.num_coefficients))
    return torch.from_numpy(draws.astype(np.float32))


def parts(temperature: Temperature) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Temperatures of teacher and student, and the T that they are around."""
    return temperature.teacher, temperature.student, level(temperature)


def levels(
    rule: CoefficientRule, coefficients: torch.Tensor, batch: InstanceOutputs, bounds: TemperatureRange | None = None
) -> torch.Tensor:
    return level(rule.temperature(coefficients, batch, bounds))


@given(seed=seeds, progress=progresses, classes=st.sampled_from([2, 10, 100]))
@settings(max_examples=30, deadline=None)
def test_without_coefficients_the_rule_is_the_annealed_schedule(seed: int, progress: float, classes: int) -> None:
    batch = outputs(classes=classes, seed=seed, progress=progress)
    for first, last in (("2s", "0.5s"), (8.0, 1.0), ("4s", 1.0)):
        rule = CoefficientRule(first=first, last=last)
        chosen = rule.temperature(torch.zeros(1, rule.num_coefficients), batch)
        expected = AnnealedTemperature(first, last).temperature(batch)
        for own, other in zip(parts(chosen), parts(expected), strict=True):
            torch.testing.assert_close(own, other)


def test_the_rule_is_the_formula_that_it_states() -> None:
    rule = CoefficientRule(("student_performance", "teacher_relative_spread"), first="3s", last="1s")
    batch, coefficients = outputs(), torch.tensor([[0.3, -0.5, 0.7]])
    spread = batch.teacher_logits.double().std(-1, correction=0)
    confidence = (batch.student_logits.double() / spread.mean()).softmax(-1).gather(-1, batch.labels[:, None])[:, 0]
    columns = (confidence, (spread / spread.mean()).log())
    first, second = (((x - x.mean()) / x.std(correction=0)).clamp(-2.0, 2.0) for x in columns)
    logarithm = 0.3 - 0.5 * first + 0.7 * second
    factor = (math.log(2) * (logarithm / math.log(2)).tanh()).exp()
    expected = spread.mean() * 3.0**0.75 * factor  # a quarter of the way from 3 s to 1 s
    torch.testing.assert_close(levels(rule, coefficients, batch), expected.float(), rtol=1e-4, atol=0)


def test_around_its_temperature_an_instance_s_own_logits_set_those_of_teacher_and_student() -> None:
    rule, batch = CoefficientRule(), outputs(progress=0.5)
    teacher, student, around = parts(rule.temperature(weights(rule), batch))
    spreads = batch.teacher_logits.std(-1, correction=0), batch.student_logits.std(-1, correction=0)
    for chosen, spread in zip((teacher, student), spreads, strict=True):
        torch.testing.assert_close(chosen, around * (spread / spreads[0].mean()).sqrt())
    shared = CoefficientRule(own_spread=0.0)
    chosen = shared.temperature(weights(shared), batch)
    assert chosen.is_shared
    torch.testing.assert_close(chosen.student, around)


def test_bounds_are_those_of_the_temperature_that_the_coefficients_choose() -> None:
    rule, batch = CoefficientRule(), outputs()
    chosen = weights(rule, size=5.0)
    free = levels(rule, chosen, batch)
    bounds = TemperatureRange(float(free.quantile(0.3)), float(free.quantile(0.7)))
    torch.testing.assert_close(levels(rule, chosen, batch, bounds), free.clamp(bounds.minimum, bounds.maximum))


@given(scale=scales, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_size_of_the_logits_scales_the_temperatures_and_changes_nothing_else(scale: float, seed: int) -> None:
    rule, batch = CoefficientRule(ALL), outputs(seed=seed)
    larger, chosen = changed(batch, scale=scale), weights(rule)
    torch.testing.assert_close(rule.inputs(larger), rule.inputs(batch), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rule.context(larger), rule.context(batch), rtol=1e-4, atol=1e-4)
    temperatures = scale * levels(rule, chosen, batch)
    torch.testing.assert_close(levels(rule, chosen, larger), temperatures, rtol=1e-3, atol=1e-5)


@given(shift=st.floats(-30.0, 30.0), seed=seeds)
@settings(max_examples=50, deadline=None)
def test_a_constant_added_to_the_logits_changes_nothing(shift: float, seed: int) -> None:
    rule, batch = CoefficientRule(ALL), outputs(seed=seed)
    moved, chosen = changed(batch, shift=shift), weights(rule)
    torch.testing.assert_close(rule.inputs(moved), rule.inputs(batch), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rule.context(moved), rule.context(batch), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(levels(rule, chosen, moved), levels(rule, chosen, batch), rtol=1e-3, atol=0)


@given(
    size=st.floats(0.0, 1000.0), width=st.floats(0.01, 2.0), seed=seeds, progress=progresses, classes=st.integers(2, 30)
)
@settings(max_examples=50, deadline=None)
def test_temperatures_stay_within_the_factor_of_the_schedule(
    size: float, width: float, seed: int, progress: float, classes: int
) -> None:
    rule, batch = CoefficientRule(ALL, width=width), outputs(classes=classes, seed=seed, progress=progress)
    chosen = levels(rule, weights(rule, size=size), batch)
    ratio = (chosen / rule.schedule.of(batch)).log()
    assert (ratio.abs() <= width + 1e-5).all()


@pytest.mark.parametrize("classes", [10, 100])
def test_features_have_mean_0_and_deviation_1_whatever_the_number_of_classes(classes: int) -> None:
    features = ("student_performance", "teacher_uncertainty", "logit_correlation", "teacher_relative_spread")
    inputs = CoefficientRule(features).inputs(outputs(batch_size=4096, classes=classes))
    assert (inputs.mean(0).abs() < 0.15).all()  # clipping moves the mean a little
    assert ((inputs.std(0) - 1.0).abs() < 0.35).all()


def test_instance_terms_move_the_mean_of_the_logarithms_by_little() -> None:
    rule = CoefficientRule()
    batch = outputs(batch_size=512)
    chosen = torch.cat([torch.zeros(1, 1), torch.full((1, len(rule.features)), 0.1)], dim=1)
    shift = (levels(rule, chosen, batch) / rule.schedule.of(batch)).log()
    assert shift.std() > 0.1
    assert abs(float(shift.mean())) < 0.02


def test_what_is_alike_in_the_batch_has_no_say() -> None:
    rule = CoefficientRule(("progress", "student_performance"))
    logits = torch.tensor([1.0, 2.0, 3.0]).repeat(4, 1)
    assert (rule.inputs(InstanceOutputs(logits, 3.0 * logits, torch.ones(4, dtype=torch.int64))) == 0.0).all()


def test_numbers_that_are_none_do_not_spread() -> None:
    batch = outputs()
    diverged = InstanceOutputs(batch.student_logits * math.nan, batch.teacher_logits, batch.labels)
    rule = CoefficientRule()
    assert rule.context(diverged).isfinite().all()
    assert levels(rule, weights(rule), diverged).isfinite().all()


def test_several_runs_in_one_batch_are_each_what_they_are_alone() -> None:
    rule, together = CoefficientRule(), outputs(num_runs=3)
    chosen = weights(rule, 3)
    temperatures, context = rule.temperature(chosen, together), rule.context(together)
    for run in range(3):
        own = slice(32 * run, 32 * (run + 1))
        alone = InstanceOutputs(
            together.student_logits[own], together.teacher_logits[own], together.labels[own], progress=0.25
        )
        for all_of_them, its_own in zip(
            parts(temperatures), parts(rule.temperature(chosen[run : run + 1], alone)), strict=True
        ):
            torch.testing.assert_close(all_of_them[own], its_own)
        torch.testing.assert_close(context[run : run + 1], rule.context(alone))


def test_the_context_tells_progress_and_how_near_the_student_is() -> None:
    batch, rule = outputs(), CoefficientRule()
    assert rule.context_names == ("progress", "logit_correlation", "agreement", "relative_spread")
    progress, correlation, agreement, ratio = rule.context(batch)[0].tolist()
    both = (batch.student_logits, batch.teacher_logits)
    expected = [np.corrcoef(one, other)[0, 1] for one, other in zip(*(x.numpy() for x in both), strict=True)]
    share = (batch.student_logits.argmax(-1) == batch.teacher_logits.argmax(-1)).double().mean()
    student, teacher = (x.std(-1, correction=0).mean() for x in both)
    assert progress == -0.5
    assert correlation == pytest.approx(np.mean(expected), abs=1e-5)
    assert agreement == pytest.approx(2.0 * float(share) - 1.0)
    assert ratio == pytest.approx(math.log(student / teacher) / math.log(8.0), abs=1e-5)


def test_wrong_widths_and_schedules_are_told() -> None:
    for wrong, message in (
        ({"width": 0.0}, "width"),
        ({"first": "hot"}, "no temperature"),
        ({"last": 0.0}, "positive"),
    ):
        with pytest.raises(UsageError, match=message):
            CoefficientRule(**wrong)
