"""Exported policies give the agent's own temperatures."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from saved_policies import assert_same
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import create_rule
from agents.sb3.export import export_policy
from agents.sb3.make import AGENTS, VectorEnvAdapter, make_agent
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import ResidualAction, TemperatureAction


@pytest.mark.slow
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


@pytest.mark.slow
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


def digits(**settings: object) -> TemperatureAction:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, **{"epochs": 60, "device": "cpu", **settings})
    return TemperatureAction(envs)


def states(count: int = 500) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, 4)).astype(np.float32)


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_networks_that_are_no_plain_stack_are_not_exported() -> None:
    envs = digits()
    agent = make_agent("ppo", envs)
    agent.policy.features_extractor = nn.Linear(4, 4)
    with pytest.raises(UsageError, match="features extractor"):
        export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
