"""Environments of one slot an instance."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import nn

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import DATASETS, DataSource
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import PAPER_FEATURES
from rlkd_env.wrappers import TemperatureAction

MakeRun = Callable[..., DistillationRun]

SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


def make_vec(num_envs: int = 64, **settings: object) -> KDVectorEnv:
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, **{**SHORT, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 16, 64])
def test_our_vector_checker_passes(num_envs: int) -> None:
    few = {"train_images": 40} if num_envs == 1 else {}  # as an epoch has an update an image
    check_vector_env(make_vec(num_envs, **few))
    check_vector_env(TemperatureAction(make_vec(num_envs, **few)))


def test_the_spaces_are_those_of_instances_and_temperatures() -> None:
    envs = make_vec(temperature_min=1, temperature_max=10)
    assert envs.single_action_space == gym.spaces.Box(1.0, 10.0, (1,), dtype=np.float32)
    assert envs.single_observation_space == gym.spaces.Box(0.0, 1.0, (4,), dtype=np.float32)
    assert envs.observation_space.shape == (64, 4)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    single = gym.make("rlkd/Digits-v0", temperature_min=1, temperature_max=10, **SHORT)
    assert single.action_space == gym.spaces.Box(1.0, 10.0, (64,), dtype=np.float32)
    assert single.observation_space.shape == (64, 4)


def test_other_features_are_chosen_by_name() -> None:
    envs = make_vec(features=("divergence", "student_entropy"))
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (64, 2)
    np.testing.assert_array_equal(envs.single_observation_space.high, [20.0, 1.0])
    assert envs.unwrapped.run.state.names != PAPER_FEATURES


def test_slots_are_the_instances_of_the_run_and_share_the_batch_reward(make_run: MakeRun) -> None:
    envs, run = make_vec(), make_run(epochs=2)
    observation, _ = envs.reset(seed=9)
    np.testing.assert_array_equal(observation, run.reset(9).numpy())
    temperatures = np.random.default_rng(0).uniform(1.0, 9.0, (64, 1)).astype(np.float32)
    observation, reward, *_ = envs.step(temperatures)
    result = run.step(Temperature.shared(torch.from_numpy(temperatures[:, 0])))
    np.testing.assert_array_equal(observation, result.state.numpy())
    np.testing.assert_array_equal(reward, np.full(64, float(result.reward), dtype=np.float32))


def test_an_episode_is_a_run_and_the_step_after_it_starts_the_next() -> None:
    envs = make_vec()
    envs.reset(seed=0)
    action = np.full((64, 1), 4.0, dtype=np.float32)
    for step in range(8):
        last, reward, terminated, truncated, info = envs.step(action)
        assert terminated.all() == (step == 7)
        assert not truncated.any()
    assert not info["diverged"].any()
    assert last[0, PAPER_FEATURES.index("progress")] == 1.0
    first, reward, terminated, _, _ = envs.step(action)
    assert envs.run.step_count == 0
    assert first[0, PAPER_FEATURES.index("progress")] == 0.0
    assert not reward.any()
    assert not terminated.any()


def test_divergence_terminates_with_the_penalty_and_says_so() -> None:
    envs = make_vec(learning_rate=1e6, epochs=100, divergence_penalty=-7.0)
    envs.reset(seed=0)
    while True:
        observation, reward, terminated, _, info = envs.step(np.full((64, 1), 4.0, dtype=np.float32))
        assert np.isfinite(observation).all()
        assert np.isfinite(reward).all()
        if terminated.any():
            break
    assert terminated.all()
    assert info["diverged"].all()
    assert (reward == -7.0).all()
    assert envs.run.step_count < envs.run.total_steps


def test_users_bring_their_own_data_teacher_and_student(digits_teacher: nn.Module) -> None:
    class FewDigits(type(DATASETS["digits"]())):
        pass

    def student() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    envs = gym.make_vec(
        "rlkd/Classification-v0", num_envs=32, dataset=FewDigits(), teacher=digits_teacher, student=student, **SHORT
    )
    envs.reset(seed=0)
    assert isinstance(FewDigits(), DataSource)
    assert envs.unwrapped.run.teacher is digits_teacher
    assert len(envs.unwrapped.run.student) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"render_mode": "human"}, "Valid: rgb_array"),
        ({"features": ("entropy",)}, "unknown feature 'entropy'"),
        ({"num_envs": 32, "batch_size": 64}, "must equal"),
        ({"num_envs": 4096}, "larger than the training set"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KDVectorEnv(**{"device": "cpu", **settings})


def test_the_stock_normalisation_wrappers_work() -> None:
    envs = gym.wrappers.vector.NormalizeReward(gym.wrappers.vector.NormalizeObservation(make_vec()))
    envs.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            observation, reward, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()
