"""Policies whose actions are around a rule or for teacher and student apart: exported, saved, and used elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import RULES, RuleSetting, check_function, create_rule, recreate_rule
from agents.sb3.export import export_policy
from agents.sb3.make import AGENTS, make_agent
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.methods import kd_loss
from rlkd_env.wrappers import ResidualAction, TemperatureAction

BOUNDS = TemperatureRange(0.5, 20.0)
SETTING = RuleSetting(BOUNDS, fixed_temperature=3.0, teacher_deviation=2.0, num_classes=10, seed=0)
FUNCTIONS = sorted(name for name, kind in RULES.items() if kind.is_function)


def batch(count: int = 9) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(1)
    student, teacher = 4.0 * torch.randn(2, count, 10, generator=generator)
    return InstanceOutputs(student, teacher, torch.arange(count) % 10, progress=0.25)


def policy(action_map: ActionMap | ResidualMap, columns: int = 1) -> TemperaturePolicy:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, columns), nn.Hardtanh()]
    return TemperaturePolicy(layers, ("student_performance", "progress"), action_map)


def assert_same(left: Temperature, right: Temperature) -> None:
    for name in ("teacher", "student", "factor"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("temperatures", ["shared", "separate"])
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_exported_policy_acts_as_the_agent_did(name: str, temperatures: str, tmp_path: Path) -> None:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=32, epochs=60, device="cpu", temperatures=temperatures)
    around = ResidualAction(envs, create_rule("lskd"), width=0.8)
    agent = make_agent(name, around, seed=0)
    agent.learn(14 * 32)
    exported = export_policy(agent, envs.unwrapped.run.state.names, around.action_map)
    exported.save(tmp_path)
    outputs = envs.unwrapped.run.outputs
    actions, _ = agent.predict(envs.unwrapped.observe(), deterministic=True)
    assert actions.shape == envs.action_space.shape
    expected = around.action_map.temperature(torch.from_numpy(actions), outputs).detach()
    loaded = TemperaturePolicy.load(tmp_path)
    assert loaded.has_gradient
    for candidate in (exported, loaded):
        assert_same(candidate(outputs).detach(), expected)
        foreign = candidate.choose(
            outputs.student_logits, outputs.teacher_logits, outputs.labels, outputs.progress
        ).detach()
        assert_same(foreign, expected)


def test_separate_temperatures_from_a_range_are_exported_too(tmp_path: Path) -> None:
    envs = TemperatureAction(
        gym.make_vec("rlkd/Digits-v0", num_envs=32, epochs=60, device="cpu", temperatures="separate")
    )
    agent = make_agent("ppo", envs, seed=0)
    agent.learn(32 * 32)
    export_policy(agent, envs.unwrapped.run.state.names, envs.action_map).save(tmp_path)
    observation = envs.unwrapped.observe()
    expected = envs.actions(agent.predict(observation, deterministic=True)[0])
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0
    loaded = TemperaturePolicy.load(tmp_path)
    np.testing.assert_allclose(loaded.temperatures_from_state(torch.from_numpy(observation)), expected, rtol=1e-6)
    chosen = loaded(envs.unwrapped.run.outputs)
    np.testing.assert_allclose(torch.stack([chosen.teacher, chosen.student], dim=1), expected, rtol=1e-6)
    assert chosen.factor is None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_that_can_be_acted_around_comes_back_from_the_file(name: str, tmp_path: Path) -> None:
    """Options in units of the teacher's deviation are kept as what they were in the run."""
    options: dict[str, Any] = {"difficulty": {"low": "0.5s"}, "fixed": {"temperature": "2s"}, "lskd": {"tau": 3}}
    rule = create_rule(name, options.get(name), SETTING)
    one = policy(ResidualMap(rule, BOUNDS, 1.1))
    one.save(tmp_path)
    loaded = TemperaturePolicy.load(tmp_path)
    assert loaded.action_map.width == 1.1
    assert_same(loaded(batch()), one(batch()))
    assert recreate_rule(rule.description).description == rule.description


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


@pytest.mark.parametrize("name", ["ctkd", "random", "public_agent"])
def test_rules_that_learn_or_draw_cannot_be_acted_around(name: str) -> None:
    with pytest.raises(UsageError) as error:
        check_function(create_rule(name, setting=SETTING))
    message = str(error.value)
    assert message.startswith(f"no agent can act around the rule {name!r}")
    assert message.endswith(f"Valid: {', '.join(FUNCTIONS)}")


def test_dtkd_is_finite_for_the_smallest_logits_there_are() -> None:
    smallest = torch.full((3, 10), 1e-40)
    chosen = create_rule("dtkd", {"tau": 4.0})(InstanceOutputs(smallest, smallest, torch.arange(3)))
    torch.testing.assert_close(chosen.student, torch.full((3,), 4.0))
    torch.testing.assert_close(chosen.teacher, torch.full((3,), 4.0))


def test_a_rule_without_a_name_cannot_be_saved(tmp_path: Path) -> None:
    nameless = policy(ResidualMap(lambda outputs: Temperature.shared(outputs.labels.float() + 1.0), BOUNDS))
    assert nameless(batch()).student.shape == (9,)
    with pytest.raises(UsageError, match="cannot be saved"):
        nameless.save(tmp_path)
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"around": {"rule": "lskk", "arguments": {}}}, "Did you mean 'lskd'"),
        ({"around": {"rule": "lskd", "arguments": {"tau": -1}}}, "tau must be positive"),
        ({"around": {"rule": "lskd", "arguments": {"x": 1}}}, "damaged"),
        ({"around": {"rule": "lskd"}}, "damaged"),
        ({"around": {"rule": ["lskd"], "arguments": {}}}, "damaged"),
        ({"around": None}, "damaged"),
        ({"around": {"rule": "ctkd", "arguments": {}}}, "no agent can act around the rule 'ctkd'"),
        ({"width": 0}, "width around a rule must be positive"),
        ({"width": "wide"}, "damaged"),
        ({"minimum": -1}, "must be positive"),
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    policy(ResidualMap(create_rule("lskd"), BOUNDS)).save(tmp_path)
    path = tmp_path / "policy.json"
    description = json.loads(path.read_text())
    description["action_map"] |= changes
    path.write_text(json.dumps(description))
    with pytest.raises(UsageError, match=message):
        TemperaturePolicy.load(tmp_path)


def test_a_network_of_another_width_is_refused(tmp_path: Path) -> None:
    for columns in (3, 1):
        policy(ActionMap(BOUNDS), columns).save(tmp_path)
        if columns == 1:
            path = tmp_path / "policy.json"
            path.write_text(path.read_text().replace('"progress"', '"progress", "teacher_entropy"'))
        with pytest.raises(UsageError, match="one or two actions"):
            TemperaturePolicy.load(tmp_path)
