"""The rule of a few coefficients, and the context that they are chosen from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs


def outputs(num_runs: int = 1, batch_size: int = 32, classes: int = 10, scale: float = 4.0) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, num_runs * batch_size, classes, generator=generator)
    labels = torch.randint(classes, (num_runs * batch_size,), generator=generator)
    return InstanceOutputs(student, scale * teacher, labels, progress=0.25, num_runs=num_runs)


def actions(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, size)).astype(np.float32)


def test_without_coefficients_every_temperature_is_the_batch_mean_deviation() -> None:
    rule, given = CoefficientRule(), outputs()
    chosen = rule.temperatures(torch.zeros(1, rule.num_coefficients), given)
    torch.testing.assert_close(chosen, given.teacher_logits.std(-1, correction=0).mean().expand(32))


def test_the_rule_is_the_formula_that_it_states() -> None:
    rule, given = CoefficientRule(("student_performance", "teacher_relative_spread")), outputs()
    weights = torch.tensor([[0.3, -0.5, 0.7]])
    spread = given.teacher_logits.double().std(-1, correction=0)
    confidence = given.student_logits.double().softmax(-1).gather(-1, given.labels[:, None])[:, 0]
    relative = (spread / spread.mean()).log() / 2.0  # its bounds are -2 and 2
    logarithm = 0.3 - 0.5 * (2.0 * confidence - 1.0) + 0.7 * relative
    expected = spread.mean() * (math.log(8) * (logarithm / math.log(8)).tanh()).exp()
    torch.testing.assert_close(rule.temperatures(weights, given), expected.float(), rtol=1e-5, atol=0)


def test_temperatures_grow_with_the_teachers_logits_and_the_context_does_not() -> None:
    rule = CoefficientRule(("teacher_relative_spread", "logit_correlation", "student_entropy"))
    weights = torch.tensor([[0.3, 1.0, -0.5, 0.7]])
    small, large = outputs(scale=4.0), outputs(scale=12.0)
    torch.testing.assert_close(3.0 * rule.temperatures(weights, small), rule.temperatures(weights, large))
    torch.testing.assert_close(rule.context(small), rule.context(large))


def test_extreme_coefficients_stay_between_the_bounds() -> None:
    rule, given = CoefficientRule(low=0.25, high=2.0), outputs()
    unit = given.teacher_logits.std(-1, correction=0).mean()
    for sign, bound in ((-1.0, 0.25), (1.0, 2.0)):
        weights = torch.zeros(1, rule.num_coefficients)
        weights[0, 0] = sign * 100.0
        torch.testing.assert_close(rule.temperatures(weights, given), (bound * unit).expand(32))


def test_several_runs_in_one_batch_are_each_what_they_are_alone() -> None:
    rule, together = CoefficientRule(), outputs(num_runs=3)
    weights = torch.from_numpy(actions(3, rule.num_coefficients))
    temperatures, context = rule.temperatures(weights, together), rule.context(together)
    for run in range(3):
        own = slice(32 * run, 32 * (run + 1))
        alone = InstanceOutputs(
            together.student_logits[own], together.teacher_logits[own], together.labels[own], progress=0.25
        )
        torch.testing.assert_close(temperatures[own], rule.temperatures(weights[run : run + 1], alone))
        torch.testing.assert_close(context[run : run + 1], rule.context(alone))


def test_the_context_tells_progress_loss_and_means() -> None:
    given = outputs()
    rule = CoefficientRule(("student_performance",))
    progress, loss, performance = rule.context(given)[0]
    assert rule.context_names == ("progress", "batch_loss", "student_performance")
    assert float(progress) == -0.5
    share = float(given.student_cross_entropy.mean()) / math.log(10)
    assert float(loss) == pytest.approx(min(1.0, 1.0 + math.log10(share) / 2.0))
    confidence = given.student_logits.softmax(-1).gather(-1, given.labels[:, None]).mean()
    assert float(performance) == pytest.approx(2.0 * float(confidence) - 1.0, abs=1e-6)
