"""The truth that calibrators are held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from credited import REFERENCE, batch_norm_and_dropout_student, probe_loss, random_temperatures
from torch import nn
from watching import watch

from agents.rules.create import create_rule
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


@pytest.mark.slow
@pytest.mark.parametrize("create_student", [None, batch_norm_and_dropout_student])
def test_the_counterfactual_is_what_a_fork_with_another_temperature_shows(
    make_run: MakeRun, create_student: Callable[[], nn.Module] | None
) -> None:
    run = make_run(batch_size=16, epochs=2)
    if create_student is not None:
        run.create_student = create_student
    run.reset(0)
    for step in range(9):
        run.step(Temperature.shared(random_temperatures(16, step)))
    temperature = random_temperatures(16, 99)
    as_it_was = run.fork()
    as_it_was.step(Temperature.shared(temperature))
    actual = probe_loss(as_it_was)
    expected = []
    for instance in range(16):
        other = temperature.clone()
        other[instance] = REFERENCE
        fork = run.fork()
        fork.step(Temperature.shared(other))
        for buffer, kept in zip(fork.student.buffers(), as_it_was.student.buffers(), strict=True):
            buffer.copy_(kept)  # the credit is about the weights; running statistics lag behind them
        expected.append(16 * (probe_loss(fork) - actual))
    calibrator = CALIBRATORS["counterfactual"](run, REFERENCE)
    watch(run, calibrator)
    run.step(Temperature.shared(temperature))
    np.testing.assert_allclose(
        calibrator.credit.numpy(), expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max() + 1e-5
    )


@pytest.mark.parametrize("equal_gradients", [False, True])
def test_the_reference_may_be_a_rule_with_two_temperatures_and_a_factor(
    make_run: MakeRun, equal_gradients: bool
) -> None:
    """Where all gradients have the same norm, a credit is for another direction at that norm."""
    run = make_run(batch_size=16, epochs=2, equal_gradients=equal_gradients)
    rule = create_rule("lskd", {"gradient": False})
    run.reset(0)
    for step in range(6):
        run.step(Temperature.shared(random_temperatures(16, step)))
    chosen = torch.stack([random_temperatures(16, seed) for seed in (97, 98, 99)])
    of_rule = rule(run.outputs)
    reference = torch.stack([of_rule.teacher, of_rule.student, of_rule.factor])
    as_it_was = run.fork()
    norms = [as_it_was.method.mean_gradient_norm]
    as_it_was.method.mean_gradient_norm = lambda norm: norms.append(norms[0](norm)) or norms[-1]
    as_it_was.step(Temperature(*chosen))
    expected = []
    for instance in range(16):
        other = chosen.clone()
        other[:, instance] = reference[:, instance]
        fork = run.fork()
        fork.method.mean_gradient_norm = lambda _: norms[-1]
        fork.step(Temperature(*other))
        expected.append(16 * (probe_loss(fork) - probe_loss(as_it_was)))
    calibrator = CALIBRATORS["counterfactual"](run, rule)
    watch(run, calibrator)
    run.step(Temperature(*chosen))
    np.testing.assert_allclose(
        calibrator.credit.numpy(), expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max() + 1e-5
    )
