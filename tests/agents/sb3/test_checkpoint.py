"""Agents go on from a restored state exactly as if they had never stopped."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import BestActions

from agents.sb3.checkpoint import agent_state, load_agent_state
from agents.sb3.families import AGENTS
from agents.sb3.make import make_agent
from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.utils.randomness import load_random_state, random_state


def through_a_file(state: Any) -> Any:
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    return torch.load(content, weights_only=True)


def learn(agent: BaseAlgorithm, steps: int) -> None:
    agent.learn(steps * agent.n_envs, reset_num_timesteps=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in AGENTS if AGENTS[name].why_not_within is None))
def test_a_restored_agent_learns_on_bit_for_bit(name: str) -> None:
    env = BestActions(num_envs=64, length=1000)
    agent = make_agent(name, env, seed=0)
    learn(agent, 32)
    state, generators = through_a_file([agent_state(agent), random_state()])
    position, group, steps = env.np_random.bit_generator.state, env.group.copy(), env.steps
    learn(agent, 32)

    other_env = BestActions(num_envs=64, length=1000)
    other = make_agent(name, other_env, seed=99)
    other_env.reset()
    load_agent_state(other, state)
    other_env.np_random.bit_generator.state, other_env.group, other_env.steps = position, group, steps
    load_random_state(generators)
    learn(other, 32)
    assert other.num_timesteps == agent.num_timesteps
    for (label, one), two in zip(agent.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
        assert torch.equal(one, two), label


@pytest.mark.slow
def test_normalisation_of_observations_is_restored() -> None:
    agent = make_agent("ppo", VecNormalize(VectorEnvAdapter(BestActions())), normalize_reward=False)
    agent.learn(64 * 16)
    other = make_agent("ppo", VecNormalize(VectorEnvAdapter(BestActions())), normalize_reward=False)
    load_agent_state(other, through_a_file(agent_state(agent)))
    ours, theirs = agent.get_vec_normalize_env(), other.get_vec_normalize_env()
    assert ours.obs_rms.mean == theirs.obs_rms.mean
    assert ours.obs_rms.count == theirs.obs_rms.count
    assert ours.ret_rms.var == theirs.ret_rms.var


@pytest.mark.slow
def test_a_state_is_independent_of_the_agent() -> None:
    agent = make_agent("sac", BestActions(), seed=0)
    learn(agent, 15)
    state = agent_state(agent)
    before = state["parameters"]["policy"]["actor.mu.weight"].clone()
    learn(agent, 15)
    assert torch.equal(state["parameters"]["policy"]["actor.mu.weight"], before)
    assert state["replay_buffer"]["pos"] == 15
