"""Exported policies: the agent's own temperatures, on disk without pickle, without Gymnasium and stable-baselines3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.sb3.export import export_policy
from agents.sb3.make import AGENTS, VectorEnvAdapter, make_agent
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.wrappers import TemperatureAction


def digits(**settings: object) -> TemperatureAction:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, **{"epochs": 60, "device": "cpu", **settings})
    return TemperatureAction(envs)


def states(count: int = 500) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, 4)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(AGENTS))
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_exported_policy_gives_the_models_temperatures(name: str, scale: str, tmp_path: Path) -> None:
    envs = TemperatureAction(digits().env, scale=scale)
    agent = make_agent(name, envs, seed=0)
    agent.learn(30 * 64)
    policy = export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
    actions, _ = agent.predict(states(), deterministic=True)
    expected = envs.actions(actions)[:, 0]
    policy.save(tmp_path)
    for candidate in (policy, TemperaturePolicy.load(tmp_path)):
        chosen = candidate.temperatures_from_state(torch.from_numpy(states())).numpy()
        np.testing.assert_allclose(chosen, expected, rtol=1e-6)


def test_normalised_observations_are_part_of_the_policy() -> None:
    envs = digits()
    agent = make_agent("ppo", VecNormalize(VectorEnvAdapter(envs)), normalize_reward=False, seed=0)
    agent.learn(32 * 64)
    policy = export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
    normalised = agent.get_vec_normalize_env().normalize_obs(states())
    actions, _ = agent.predict(normalised, deterministic=True)
    chosen = policy.temperatures_from_state(torch.from_numpy(states())).numpy()
    np.testing.assert_allclose(chosen, envs.actions(actions)[:, 0], rtol=1e-5)


def test_squashed_ppo_policies_are_exported_too() -> None:
    envs = digits()
    agent = make_agent(
        "ppo",
        envs,
        use_sde=True,
        policy_kwargs={"squash_output": True, "activation_fn": nn.ELU},
        normalize_reward=False,
    )
    policy = export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
    actions, _ = agent.predict(states(), deterministic=True)
    np.testing.assert_allclose(
        policy.temperatures_from_state(torch.from_numpy(states())).numpy(), envs.actions(actions)[:, 0], rtol=1e-6
    )


def small_policy() -> TemperaturePolicy:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1), nn.Hardtanh()]
    return TemperaturePolicy(layers, ("student_performance", "progress"), ActionMap(TemperatureRange(1.0, 9.0)))


def test_a_policy_reads_its_features_out_of_the_logits(tmp_path: Path) -> None:
    policy = small_policy()
    student, teacher, labels = torch.randn(5, 10), torch.randn(5, 10), torch.arange(5)
    state = torch.stack([student.softmax(1)[torch.arange(5), labels], torch.full((5,), 0.3)], dim=1)
    expected = policy.temperatures_from_state(state)
    torch.testing.assert_close(policy.temperatures(student, teacher, labels, progress=0.3), expected)
    temperature = policy(InstanceOutputs(student, teacher, labels, 0.3))
    torch.testing.assert_close(temperature.teacher, expected)
    torch.testing.assert_close(temperature.student, expected)
    policy.save(tmp_path)
    loaded = TemperaturePolicy.load(str(tmp_path / "policy.json"))
    assert loaded.features == ("student_performance", "progress")
    torch.testing.assert_close(loaded.temperatures(student, teacher, labels, progress=0.3), expected)


def test_a_policy_works_where_gymnasium_and_stable_baselines3_are_missing(tmp_path: Path) -> None:
    small_policy().save(tmp_path)
    code = f"""
import sys, importlib.util as u
for name in ("gymnasium", "stable_baselines3"): sys.modules[name] = None
find = u.find_spec
u.find_spec = lambda name, *a: None if name in ("gymnasium", "stable_baselines3") else find(name, *a)
import torch
from agents.learned.temperature_policy import TemperaturePolicy
policy = TemperaturePolicy.load({str(tmp_path)!r})
print(len(policy.temperatures(torch.randn(7, 10), torch.randn(7, 10), torch.arange(7), progress=0.5)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "7\n", result.stderr


def test_damaged_or_foreign_policy_files_are_refused(tmp_path: Path) -> None:
    def damage(name: str, change: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        small_policy().save(folder)
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return folder

    def rewritten(**changes: object) -> object:
        return lambda content: json.dumps({**json.loads(content), **changes}).encode()

    cases = [
        (damage("policy.safetensors", lambda b: b[:-5]), "damaged"),
        (damage("policy.safetensors", lambda b: b[:-4] + b"\0\0\0\1"), "damaged"),
        (damage("policy.json", lambda b: b[: len(b) // 2]), "cannot be read as JSON"),
        (damage("policy.json", lambda b: b"[]"), "not a policy of format"),
        (damage("policy.json", rewritten(format=99)), "not a policy of format"),
        (damage("policy.json", rewritten(layers=[{"type": "Pickle", "arguments": {}}])), "unknown layer"),
        (damage("policy.json", rewritten(layers=[{"type": "Linear", "arguments": {"x": 1}}])), "damaged"),
        (damage("policy.json", rewritten(action_map={"scale": "log"})), "damaged"),
        (damage("policy.json", rewritten(features=["unheard_of", "progress"])), "unknown feature"),
        (damage("policy.json", rewritten(layers=[{"type": "Tanh", "arguments": {}}])), "another network"),
        (tmp_path / "nowhere", "does not exist"),
    ]
    for folder, message in cases:
        with pytest.raises(UsageError, match=message):
            TemperaturePolicy.load(folder)


def test_layers_that_cannot_be_described_are_not_saved(tmp_path: Path) -> None:
    policy = TemperaturePolicy([nn.Bilinear(1, 1, 1)], ("progress",), ActionMap(TemperatureRange(1.0, 9.0)))
    with pytest.raises(UsageError, match="cannot be saved"):
        policy.save(tmp_path)
    assert not (tmp_path / "policy.json").exists()


def test_networks_that_are_no_plain_stack_are_not_exported() -> None:
    envs = digits()
    agent = make_agent("ppo", envs)
    agent.policy.features_extractor = nn.Linear(4, 4)
    with pytest.raises(UsageError, match="features extractor"):
        export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
