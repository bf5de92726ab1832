"""Exported policies give the agent's own temperatures."""

from __future__ import annotations

from dataclasses import replace
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
from agents.sb3.export import export_policy, export_sampling_policy
from agents.sb3.families import AGENTS
from agents.sb3.make import make_agent
from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import ResidualAction, TemperatureAction

EXPORTED = sorted(set(AGENTS) - {"recurrent_ppo"})
"""A policy that remembers is no function of a state."""


@pytest.mark.slow
@pytest.mark.parametrize("temperatures", ["shared", "separate"])
@pytest.mark.parametrize("name", EXPORTED)
def test_the_exported_policy_acts_as_the_agent_did(name: str, temperatures: str, tmp_path: Path) -> None:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=32, epochs=10, device="cpu", temperatures=temperatures)
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
        gym.make_vec(
            "rlkd/Digits-v0", num_envs=32, epochs=60, device="cpu", action="temperature", temperatures="separate"
        )
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
    envs = gym.make_vec(
        "rlkd/Digits-v0", num_envs=64, **{"epochs": 10, "device": "cpu", "action": "temperature", **settings}
    )
    return TemperatureAction(envs)


def states(count: int = 500) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, 4)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*EXPORTED} - {"ars"}))  # which explores by its weights
def test_a_sampling_policy_draws_actions_as_the_agent_does_while_it_learns(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = digits()
    agent = make_agent(name, envs, seed=0)
    agent.learn(14 * 64)
    policy = export_sampling_policy(agent, envs.unwrapped.run.state.names, envs.action_map, seed=3)
    outputs = envs.unwrapped.run.outputs
    many = states(1).repeat(20_000, axis=0)
    monkeypatch.setattr(policy, "state", lambda _: torch.from_numpy(many))
    drawn = policy.action(outputs).numpy()
    expected, _ = agent.predict(many, deterministic=False)
    if agent.action_noise is not None:  # which predict() leaves out
        expected = np.clip(expected + np.random.default_rng(0).normal(0.0, 0.2, expected.shape), -1.0, 1.0)
    assert drawn.shape == expected.shape
    assert drawn.std() > 0.05
    levels = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(np.quantile(drawn, levels), np.quantile(expected, levels), atol=0.03)


def test_what_a_sampling_policy_draws_follows_from_the_seed_and_the_step() -> None:
    envs = digits()
    agent = make_agent("ppo", envs, seed=0)
    envs.reset(seed=0)
    outputs, names = envs.unwrapped.run.outputs, envs.unwrapped.run.state.names
    one, same, other = (export_sampling_policy(agent, names, envs.action_map, seed) for seed in (3, 3, 4))
    first = one(outputs).student
    one(replace(outputs, step=outputs.step + 1))
    assert torch.equal(one(outputs).student, first)  # whatever was drawn between
    assert torch.equal(same(outputs).student, first)
    assert not torch.equal(other(outputs).student, first)
    assert not torch.equal(one(replace(outputs, step=outputs.step + 1)).student, first)
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_a_policy_whose_noise_depends_on_the_state_by_a_matrix_is_not_drawn_from() -> None:
    envs = digits()
    agent = make_agent("ppo", envs, use_sde=True, normalize_reward=False)
    with pytest.raises(UsageError, match="StateDependentNoiseDistribution: choose acting mean"):
        export_sampling_policy(agent, envs.unwrapped.run.state.names, envs.action_map, seed=0)


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


@pytest.mark.parametrize(("name", "message"), [("recurrent_ppo", "remembers"), ("ars", "needs normal ones")])
def test_policies_that_cannot_be_drawn_from_are_refused(name: str, message: str) -> None:
    envs = digits()
    agent = make_agent(name, envs, seed=0)
    with pytest.raises(UsageError, match=message):
        export_sampling_policy(agent, envs.unwrapped.run.state.names, envs.action_map, seed=0)


def test_networks_that_are_no_plain_stack_are_not_exported() -> None:
    envs = digits()
    agent = make_agent("ppo", envs)
    agent.policy.features_extractor = nn.Linear(4, 4)
    with pytest.raises(UsageError, match="features extractor"):
        export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)
