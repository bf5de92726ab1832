"""Published rules: standardisation, powers, curricula and what they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rule_outputs import SETTING, outputs, own_rule, softmax
from torch import Tensor

from agents.rules.create import create_rule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import kd_loss
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


def standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=-1, keepdim=True)) / logits.std(dim=-1, correction=0, keepdim=True)


def test_lskd_is_standardisation_in_loss_and_gradient() -> None:
    batch = outputs()
    batch.student_logits.requires_grad_(True)
    rule = create_rule("lskd")
    loss = kd_loss(batch.student_logits, batch.teacher_logits, rule(batch))
    fixed = Temperature.shared(torch.full((50,), 2.0, dtype=torch.float64))
    expected = kd_loss(standardised(batch.student_logits), standardised(batch.teacher_logits), fixed)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss.sum(), batch.student_logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), batch.student_logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
    # Of standardised logits the loss sees no scale, so the gradient has no part along them.
    centred = batch.student_logits.detach() - batch.student_logits.detach().mean(dim=-1, keepdim=True)
    assert (gradient * centred).sum(dim=-1).abs().max() < 1e-9


@pytest.mark.parametrize("gamma", [0.25, 0.8])
def test_ttm_compares_the_students_own_distribution_with_a_power_of_the_teachers(gamma: float) -> None:
    batch = outputs()
    for name in ("ttm", "wttm"):
        losses = kd_loss(batch.student_logits, batch.teacher_logits, create_rule(name, {"gamma": gamma})(batch))
        for loss, student, teacher in zip(
            losses, batch.student_logits.numpy(), batch.teacher_logits.numpy(), strict=True
        ):
            power = softmax(teacher) ** gamma
            weight = power.sum() if name == "wttm" else 1.0
            power = power / power.sum()
            expected = weight * (power * np.log(power / softmax(student))).sum()
            assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_ctkds_gradient_factor_is_that_of_its_authors_code() -> None:
    rule: Any = create_rule("ctkd")

    def of_authors(epoch: int) -> float:  # CosineDecay(max_value=0, min_value=-1, num_loops=10).get_value(epoch)
        value = (math.cos(min(epoch, 10) * math.pi / 10) + 1.0) * 0.5
        return value * (0.0 - -1.0) + -1.0

    for epoch in range(1, 13):  # their epochs count from 1; ours are those that are over
        for within in (0.0, 0.75):
            assert rule.gradient_factor(epoch - 1 + within) == pytest.approx(of_authors(epoch))
    in_epochs = [rule.gradient_factor(epoch - 1.0) for epoch in (1, 2, 5, 10)]
    assert in_epochs == pytest.approx([-0.024, -0.095, -0.5, -1.0], abs=1e-3)
    assert rule.gradient_factor(math.inf) == -1.0
    none: Any = create_rule("ctkd", {"curriculum_epochs": 0})
    assert none.gradient_factor(0.0) == -1.0


@pytest.mark.parametrize("scope", ["global", "instance"])
@pytest.mark.parametrize("squared", [True, False])
def test_the_divergence_rises_when_theta_alone_is_stepped(scope: str, squared: bool) -> None:
    torch.manual_seed(0)
    rule = create_rule("ctkd", {"scope": scope}, SETTING)
    batch = outputs(epoch=20.0)

    def loss() -> Tensor:
        return kd_loss(batch.student_logits, batch.teacher_logits, rule(batch), squared).mean()

    optimizer = torch.optim.SGD(rule.parameters(), lr=1e-3)
    before = loss()
    for _ in range(5):
        optimizer.zero_grad()
        (now := loss()).backward()
        optimizer.step()
        assert loss() > now
    assert loss() > before
    if scope == "instance":
        assert rule(batch).student.std() > 0


def test_ctkds_network_reads_both_networks_logits() -> None:
    torch.manual_seed(0)
    rule: Any = create_rule("ctkd", {"scope": "instance", "hidden": 16}, SETTING).double()
    torch.nn.init.normal_(rule.network[-1].weight)
    batch = outputs()
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in rule.parameters())
    chosen = rule(batch).student.detach().numpy()
    for value, student, teacher in zip(chosen, batch.student_logits.numpy(), batch.teacher_logits.numpy(), strict=True):
        theta = w2[0] @ np.maximum(w1 @ np.concatenate([teacher, student]) + b1, 0) + b2[0]
        assert value == pytest.approx(1 + 20 / (1 + math.exp(-theta)), rel=1e-10)


@pytest.mark.parametrize("scope", ["global", "instance"])
def test_ctkds_gradient_is_the_losses_own_times_lambda_and_spares_the_student(scope: str) -> None:
    rule: Any = create_rule("ctkd", {"scope": scope}, SETTING)
    gradients = []
    for epoch in (4.0, math.inf):  # the fifth epoch, whose factor is -1/2, and one long after
        batch = outputs(epoch=epoch)
        batch.student_logits.requires_grad_(True)
        rule(batch).student.sum().backward()
        assert batch.student_logits.grad is None
        parameter = rule.theta if scope == "global" else rule.network[-1].bias
        gradients.append(float(parameter.grad))
        rule.zero_grad()
    slope = 20 * math.exp(-1) / (1 + math.exp(-1)) ** 2 * 50
    assert gradients == pytest.approx([-0.5 * slope, -slope], rel=1e-5)


def test_the_runs_optimiser_trains_ctkd_from_a_fresh_start_each_time(make_run: MakeRun) -> None:
    run = own_rule(make_run(epochs=6), "ctkd", curriculum_epochs=0)
    seen = []
    for _ in range(2):
        run.reset(0)
        policy: Any = run.policy
        assert policy.theta.item() == 1.0
        result = run.advance(steps=8)
        assert not result.temperature.student.requires_grad
        assert policy.theta.item() != 1.0
        seen.append(result.temperature.student)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def test_dtkd_is_finite_for_the_smallest_logits_there_are() -> None:
    smallest = torch.full((3, 10), 1e-40)
    chosen = create_rule("dtkd", {"tau": 4.0})(InstanceOutputs(smallest, smallest, torch.arange(3)))
    torch.testing.assert_close(chosen.student, torch.full((3,), 4.0))
    torch.testing.assert_close(chosen.teacher, torch.full((3,), 4.0))
