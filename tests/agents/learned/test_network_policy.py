"""Policies whose actions are around a rule or for teacher and student apart, saved and used elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_policies import BOUNDS, FUNCTIONS, assert_same, batch, policy

from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import RuleSetting, create_rule, recreate_rule
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.methods import kd_loss

SETTING = RuleSetting(BOUNDS, fixed_temperature=3.0, teacher_deviation=2.0, num_classes=10, seed=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_that_can_be_acted_around_comes_back_from_the_file(name: str, tmp_path: Path) -> None:
    """Options in units of the teacher's deviation are kept as what they were in the run."""
    options: dict[str, Any] = {"difficulty": {"low": "0.5s"}, "fixed": {"temperature": "2s"}, "lskd": {"tau": 3}}
    rule = create_rule(name, options.get(name), SETTING)
    one = policy(ResidualMap(rule, BOUNDS, 1.1, "free"))
    one.save(tmp_path)
    loaded = TemperaturePolicy.load(tmp_path)
    assert (loaded.action_map.width, loaded.action_map.level) == (1.1, "free")
    assert_same(loaded(batch()), one(batch()))
    assert recreate_rule(rule.description).description == rule.description


def test_a_policy_around_another_comes_back_from_the_file_with_all_within(tmp_path: Path) -> None:
    around_rule = policy(ResidualMap(create_rule("lskd", {"tau": 3}), BOUNDS, 0.3))
    for within in (load_policy("pretrained"), around_rule):
        one = policy(ResidualMap(within, BOUNDS, 0.7))
        one.save(tmp_path)
        loaded = load_policy(tmp_path)
        assert_same(loaded(batch()), one(batch()))
        assert not torch.equal(loaded(batch()).teacher, within(batch()).teacher)
        assert one.has_gradient == (within is around_rule)
        one.save(tmp_path / "again")
        for name in ("policy.json", "policy.safetensors"):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_policy_around_another_holds_one_of_its_own() -> None:
    within = load_policy("pretrained")
    one, expected = policy(ResidualMap(within, BOUNDS)), policy(ResidualMap(within, BOUNDS))(batch())
    with torch.no_grad():
        for parameter in within.parameters():
            parameter.fill_(0.4)
    assert_same(one(batch()), expected)
    assert {tensor.dtype for tensor in one.to(torch.float64).state_dict().values()} == {torch.float64}
    assert next(within.parameters()).dtype == torch.float32


def test_temperatures_are_one_number_only_where_they_are_shared() -> None:
    given = (batch().student_logits, batch().teacher_logits, batch().labels, 0.25)
    around_fixed = policy(ResidualMap(create_rule("fixed", setting=SETTING), BOUNDS))
    torch.testing.assert_close(around_fixed.temperatures(*given), around_fixed(batch()).student)
    around_lskd, separate = policy(ResidualMap(create_rule("lskd"), BOUNDS)), policy(ActionMap(BOUNDS), columns=2)
    for candidate in (around_lskd, separate):
        with pytest.raises(ValueError, match="use choose"):
            candidate.temperatures(*given)
    for candidate in (around_fixed, around_lskd):
        with pytest.raises(ValueError, match="use choose"):
            candidate.temperatures_from_state(torch.rand(3, 2))


def test_the_rules_gradient_reaches_foreign_kd_code() -> None:
    chooser, given = policy(ResidualMap(create_rule("lskd"), BOUNDS)), batch()
    logits = given.student_logits.requires_grad_(True)
    chosen = chooser.choose(logits, given.teacher_logits, given.labels, 0.25)
    assert chosen.student.requires_grad
    assert not policy(ResidualMap(create_rule("lskd", {"gradient": False}), BOUNDS))(given).student.requires_grad
    full, cut = (
        torch.autograd.grad(kd_loss(logits, given.teacher_logits, each).sum(), logits, retain_graph=True)[0]
        for each in (chosen, chosen.detach())
    )
    assert not torch.allclose(full, cut)


@pytest.mark.slow
def test_such_a_policy_works_where_gymnasium_and_stable_baselines3_are_missing(tmp_path: Path) -> None:
    policy(ResidualMap(create_rule("lskd"), BOUNDS)).save(tmp_path)
    code = f"""
import sys, importlib.util as u
for name in ("gymnasium", "stable_baselines3"): sys.modules[name] = None
find = u.find_spec
u.find_spec = lambda name, *a: None if name in ("gymnasium", "stable_baselines3") else find(name, *a)
import torch
from agents.learned.temperature_policy import TemperaturePolicy
policy = TemperaturePolicy.load({str(tmp_path)!r})
print(len(policy.choose(torch.randn(7, 10), torch.randn(7, 10), torch.arange(7), progress=0.5).factor))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "7\n", result.stderr
