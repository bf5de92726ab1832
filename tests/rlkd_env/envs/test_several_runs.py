"""The vector environment of several runs, held against the contract and used by an agent."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import rlkd_env  # noqa: F401 (registers the environments)
from agents.sb3.make import make_agent
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import CalibratedReward, EfficientExploration, TemperatureAction

MakeRun = Callable[..., DistillationRun]

SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


def make_vec(num_envs: int = 48, num_runs: int = 3, **settings: object) -> KDVectorEnv:
    settings = {**SHORT, "run_mode": "stacked", **settings}
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, num_runs=num_runs, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "stacked", "workers", "serial"])
def test_our_vector_checker_passes(mode: str) -> None:
    for envs in (make_vec(run_mode=mode), TemperatureAction(make_vec(run_mode=mode))):
        check_vector_env(envs)
        envs.close()


def test_slots_are_the_instances_of_the_runs_of_successive_seeds() -> None:
    envs = make_vec()
    observation, _ = envs.reset(seed=7)
    assert envs.runs.seeds == (7, 8, 9)
    assert (envs.num_runs, envs.runs.batch_size, envs.action_space.shape) == (3, 16, (48, 1))
    temperature = np.random.default_rng(0).uniform(1.0, 9.0, (48, 1)).astype(np.float32)
    following, reward, *_ = envs.step(temperature)
    for run in range(3):
        single = KDEnv(batch_size=16, **SHORT)
        own = slice(16 * run, 16 * (run + 1))
        np.testing.assert_allclose(observation[own], single.reset(seed=7 + run)[0], atol=1e-5)
        expected, expected_reward, *_ = single.step(temperature[own, 0])
        np.testing.assert_allclose(following[own], expected, atol=1e-5)
        np.testing.assert_allclose(reward[own], np.full(16, expected_reward), atol=1e-6)
    np.testing.assert_array_equal(envs.observe(), following)


def test_all_runs_end_together_and_the_next_step_starts_others() -> None:
    envs = make_vec(batch_size=16)
    envs.reset(seed=0)
    action = np.full((48, 1), 4.0, dtype=np.float32)
    length = envs.runs.total_steps
    for step in range(length):
        _, _, terminated, truncated, info = envs.step(action)
        assert terminated.all() == terminated.any() == (step == length - 1)
        assert not truncated.any()
    assert not info["diverged"].any()
    assert info["_diverged"].all()
    seeds = envs.runs.seeds
    _, reward, terminated, _, _ = envs.step(action)
    assert not reward.any()
    assert not terminated.any()
    assert envs.runs.step_count == 0
    assert set(envs.runs.seeds).isdisjoint(seeds)


def student_that_overflows_for_seed_4() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    if torch.initial_seed() == 4:
        network[1].weight.data.fill_(3e38)
    return network


def test_a_diverged_run_is_named_earns_its_penalty_once_and_waits_for_the_end() -> None:
    envs = make_vec(student=student_that_overflows_for_seed_4, divergence_penalty=-7.0)
    second = np.repeat([False, True, False], 16)
    first_observation, _ = envs.reset(seed=3)
    assert np.isfinite(first_observation).all()
    for step in range(1, envs.runs.total_steps + 1):
        observation, reward, terminated, _, info = envs.step(np.full((48, 1), 4.0, dtype=np.float32))
        assert np.isfinite(observation).all()
        assert (reward[second] == (-7.0 if step == 1 else 0.0)).all()
        assert (np.abs(reward[~second]) < 1.0).all()
        is_last = step == envs.runs.total_steps
        assert (terminated == is_last).all()
        if step == 1 or is_last:
            np.testing.assert_array_equal(info["diverged"], second)
            np.testing.assert_array_equal(info["_diverged"], second | is_last)
        else:
            assert "diverged" not in info


def test_an_episode_is_over_when_no_run_is_left() -> None:
    envs = make_vec(learning_rate=1e6, epochs=50)
    check_vector_env(envs)
    envs.reset(seed=0)
    terminated = np.zeros(1)
    while not terminated.any():
        _, _, terminated, _, info = envs.step(np.full((48, 1), 4.0, dtype=np.float32))
    assert info["diverged"].all()
    assert envs.runs.step_count < envs.runs.total_steps


def test_a_run_that_had_diverged_when_the_state_was_saved_is_not_named_again() -> None:
    settings = {"student": student_that_overflows_for_seed_4}
    envs, others = make_vec(**settings), make_vec(**settings)
    envs.reset(seed=3)
    action = np.full((48, 1), 4.0, dtype=np.float32)
    observation, *_, info = envs.step(action)
    assert info["diverged"].any()
    others.runs.load_state_dict(envs.runs.state_dict())
    np.testing.assert_array_equal(others.observe(), observation)
    assert "diverged" not in others.step(action)[-1]


@pytest.mark.slow
def test_ppo_learns_on_the_slots_of_several_runs() -> None:
    envs = TemperatureAction(make_vec(num_envs=64, num_runs=4, epochs=1))
    agent = make_agent("ppo", envs, n_steps=16, seed=0)
    before = agent.policy.state_dict()["action_net.weight"].clone()
    agent.learn(64 * 40)  # a run is of 18 steps, so over runs' ends
    assert agent.num_timesteps >= 64 * 40
    assert not np.array_equal(before.numpy(), agent.policy.state_dict()["action_net.weight"].numpy())


def test_uniform_rewards_stay_those_of_the_runs_and_other_wrappers_are_refused() -> None:
    plain, wrapped = TemperatureAction(make_vec()), CalibratedReward(TemperatureAction(make_vec()), "uniform")
    for env in (plain, wrapped):
        env.reset(seed=0)
    action = np.linspace(-1, 1, 48, dtype=np.float32)[:, None]
    for _ in range(3):
        expected, reward = plain.step(action)[1], wrapped.step(action)[1]
        np.testing.assert_array_equal(reward, expected)
    assert len(np.unique(reward)) == 3
    assert wrapped.metrics == {"reward_spread": 0.0}
    for calibrator in ("return_decomposition", "gradient"):
        with pytest.raises(UsageError, match="needs a single run: with num_runs, take uniform"):
            CalibratedReward(TemperatureAction(make_vec()), calibrator)
    with pytest.raises(UsageError, match="needs a single run, but there are num_runs=3"):
        EfficientExploration(make_vec(), Exploration())
    with pytest.raises(UsageError, match="pass num_runs"):
        _ = KDVectorEnv(16, **SHORT).runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 50, "num_runs": 3}, "num_envs=50 must be num_runs=3 times the batch size"),
        ({"num_envs": 64, "num_runs": 4, "batch_size": 64}, "num_envs=64 must be num_runs=4 times"),
        ({"num_envs": 64, "num_runs": 0}, "at least 1"),
        ({"num_envs": 64, "num_runs": 2, "run_mode": "thread"}, "unknown run mode 'thread'"),
        ({"num_envs": 64, "run_mode": "stack"}, "Did you mean 'stacked'"),
        (
            {"num_envs": 64, "num_runs": 2, "run_mode": "stacked", "method": "vid", "student": "digits_cnn"},
            "cannot be stacked",
        ),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KDVectorEnv(**{**SHORT, **settings})


def test_the_number_of_slots_follows_from_runs_and_batch_size(make_run: MakeRun) -> None:
    assert KDVectorEnv(num_runs=2, run_mode="stacked", batch_size=8, **SHORT).num_envs == 16
    envs = KDVectorEnv(num_runs=2, run_mode="stacked", run=make_run(batch_size=16))
    assert envs.num_envs == 32


@pytest.mark.slow
def test_the_picture_shows_the_slots_of_all_runs() -> None:
    envs = make_vec(render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="reset"):
        envs.render()
    envs.reset(seed=0)
    empty, *_ = envs.render()
    envs.step(np.full((48, 1), 4.0, dtype=np.float32))
    picture, *others = envs.render()
    assert all(other is picture for other in others)
    assert picture.shape == (360, 500, 3)
    assert (picture != empty).any()
