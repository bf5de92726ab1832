"""A policy for several runs gives each of them the temperatures of its own rule, bit for bit."""

from __future__ import annotations

import pytest
import torch
from rule_outputs import outputs

from agents.rules.base import Rule
from agents.rules.by_run import PolicyByRun
from agents.rules.create import create_rule
from agents.rules.schedules import Anneal
from agents.rules.simple import FixedTemperature
from rlkd_env.instances.outputs import InstanceOutputs

FIXED = [FixedTemperature(temperature) for temperature in (0.613, 8.37, 4.0)]
ANNEALED = [Anneal(), Anneal("2s", 0.7), Anneal(7, 0.5, "cosine"), Anneal(7, "0.11s")]
OTHERS = [create_rule("dts"), create_rule("lskd"), create_rule("dtkd", {"gradient": False})]
MIXED: list[Rule] = [OTHERS[0], FIXED[0], ANNEALED[0], OTHERS[1], FIXED[1], ANNEALED[2], OTHERS[2]]


def batches(count: int, progress: float, dtype: torch.dtype, epochs: float = 30.0) -> list[InstanceOutputs]:
    return [outputs(32, seed, dtype, progress=progress, epochs=epochs) for seed in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rules", [FIXED, ANNEALED, MIXED, OTHERS[:1]], ids=["fixed", "annealed", "mixed", "one"])
def test_every_run_has_the_temperatures_of_its_rule(rules: list[Rule], dtype: torch.dtype) -> None:
    policy = PolicyByRun(rules)
    for progress, epochs in ((0.0, 30), (0.0, 2), (0.1, 2), (1 / 3, 5), (0.77, 30), (1.0, 2)):
        alone = batches(len(rules), progress, dtype, epochs)
        found = policy(InstanceOutputs.join(alone))
        for run, (rule, batch) in enumerate(zip(rules, alone, strict=True)):
            own, expected = found.rows(slice(32 * run, 32 * run + 32)), rule(batch)
            assert torch.equal(own.student, expected.student)
            assert torch.equal(own.teacher, expected.teacher)
            loss = torch.linspace(0.1, 3.0, 32)
            assert torch.equal(own.scale(loss), expected.scale(loss))


def test_fixed_and_annealed_members_are_asked_together_and_not_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PolicyByRun([*FIXED, *ANNEALED])
    for kind in (FixedTemperature, Anneal):
        monkeypatch.setattr(kind, "forward", lambda *_: pytest.fail("asked alone"))
    found = policy(InstanceOutputs.join(batches(7, 0.5, torch.float32)))
    shared = found.student.unflatten(0, (7, 32)).std(dim=1) < 1e-6
    assert shared.tolist() == [True] * len(FIXED) + [False] * len(ANNEALED)


def test_annealed_regions_have_the_ends_of_regions() -> None:
    batch = outputs(8, progress=0.0, further_loss=torch.zeros(8))
    policy = PolicyByRun([Anneal(regions=(2, 0.5)), Anneal(regions=(4, 0.5))])
    assert policy(InstanceOutputs.join([batch, batch])).student.tolist() == [2.0] * 8 + [4.0] * 8


def test_the_policy_carries_gradients_if_one_of_its_rules_does() -> None:
    assert PolicyByRun(MIXED).has_gradient
    assert not PolicyByRun([*FIXED, *ANNEALED]).has_gradient
    student = outputs(4).student_logits.requires_grad_(True)
    batch = outputs(4).with_student_logits(student)
    both = InstanceOutputs(student.repeat(2, 1), batch.teacher_logits.repeat(2, 1), batch.labels.repeat(2), num_runs=2)
    PolicyByRun([FIXED[0], create_rule("lskd")])(both).student.sum().backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0.0


def test_parameters_of_a_rule_that_learns_along_are_seen() -> None:
    assert [*PolicyByRun([FIXED[0], create_rule("ctkd")]).parameters()]


def test_outputs_of_another_number_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="a policy for 3 runs got the outputs of 1"):
        PolicyByRun(FIXED)(outputs())
