"""The environments, held against Gymnasium's, stable-baselines3's and our own checkers."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch import nn

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import DATASETS, DataSource
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import PAPER_FEATURES
from rlkd_env.wrappers import TemperatureAction

MakeRun = Callable[..., DistillationRun]
SHORT = {"epochs": 2, "device": "cpu"}


def make_vec(num_envs: int = 64, **settings: object) -> KDVectorEnv:
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, **{**SHORT, **settings})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("reward", ["train_progress", "probe_loss", "probe_accuracy"])
def test_gymnasiums_checker_passes(reward: str) -> None:
    env = gym.make("rlkd/Digits-v0", reward=reward, render_mode="rgb_array", **SHORT)
    check_env(env.unwrapped)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stable_baselines3s_checker_passes() -> None:
    check_env_for_sb3(gym.make("rlkd/Digits-v0", **SHORT).unwrapped)


@pytest.mark.parametrize("num_envs", [1, 16, 64])
def test_our_vector_checker_passes(num_envs: int) -> None:
    check_vector_env(make_vec(num_envs))
    check_vector_env(TemperatureAction(make_vec(num_envs)))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasium_makes_whole_runs_of_the_single_environment(mode: str) -> None:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=2, vectorization_mode=mode, batch_size=16, **SHORT)
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (2, 16, 4)
    assert envs.action_space.shape == (2, 16)
    assert not np.array_equal(observation[0], observation[1])
    observation, reward, *_ = envs.step(np.full((2, 16), 4.0, dtype=np.float32))
    assert reward.shape == (2,)
    single = gym.make("rlkd/Digits-v0", batch_size=16, **SHORT)
    single.reset(seed=1)  # Gymnasium seeds the second run with seed + 1
    expected, expected_reward, *_ = single.step(np.full(16, 4.0, dtype=np.float32))
    np.testing.assert_array_equal(observation[1], expected)
    assert reward[1] == expected_reward
    envs.close()


def test_the_spaces_are_those_of_instances_and_temperatures() -> None:
    envs = make_vec(temperature_min=1, temperature_max=10)
    assert envs.single_action_space == gym.spaces.Box(1.0, 10.0, (1,), dtype=np.float32)
    assert envs.single_observation_space == gym.spaces.Box(0.0, 1.0, (4,), dtype=np.float32)
    assert envs.observation_space.shape == (64, 4)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    single = gym.make("rlkd/Digits-v0", temperature_min=1, temperature_max=10, **SHORT)
    assert single.action_space == gym.spaces.Box(1.0, 10.0, (64,), dtype=np.float32)
    assert single.observation_space.shape == (64, 4)


def test_the_default_range_is_in_units_of_the_teachers_logit_deviation(make_run: MakeRun) -> None:
    run = make_run()
    bounds = run.temperature_range
    assert bounds.maximum / bounds.minimum == pytest.approx(32.0)


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


def test_temperatures_outside_the_range_are_clipped_to_it() -> None:
    def after(value: float) -> np.ndarray:
        env = gym.make("rlkd/Digits-v0", temperature_min=1, temperature_max=10, **SHORT)
        env.reset(seed=0)
        return env.unwrapped.step(np.full(64, value, dtype=np.float32))[0]

    np.testing.assert_array_equal(after(1e9), after(10.0))
    np.testing.assert_array_equal(after(-5.0), after(1.0))


@pytest.mark.parametrize("action", [np.full(64, np.nan), np.ones(63), np.ones((64, 1))])
def test_actions_that_are_no_temperatures_are_refused(action: np.ndarray) -> None:
    env = KDEnv(**SHORT)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="temperature"):
        env.step(action.astype(np.float32))
    envs = KDVectorEnv(64, **SHORT)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(64, 1\)"):
        envs.step(np.ones(64, dtype=np.float32))


def test_resets_without_a_seed_draw_new_runs_from_the_seeded_generator() -> None:
    def seeds_of_three_runs() -> list[int]:
        env = KDEnv(**SHORT)
        env.reset(seed=0)
        seeds = [env.run.seed]
        for _ in range(2):
            env.reset()
            seeds.append(env.run.seed)
        return seeds

    first = seeds_of_three_runs()
    assert len(set(first)) == 3
    assert seeds_of_three_runs() == first


def test_rendering_shows_the_temperatures() -> None:
    env = gym.make("rlkd/Digits-v0", render_mode="rgb_array", **SHORT)
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.render()
    env.reset(seed=0)
    empty = env.render()
    env.step(np.full(64, 2.0, dtype=np.float32))
    low = env.render()
    env.step(np.full(64, 20.0, dtype=np.float32))
    high = env.render()
    assert empty.dtype == np.uint8
    assert empty.shape == low.shape == (360, 500, 3)

    def mean_row_of_points(picture: np.ndarray) -> float:
        axes = slice(50, 400)  # left of the colour bar
        changed = (picture[40:300, axes] != empty[40:300, axes]).any(axis=-1)
        return float(np.nonzero(changed)[0].mean())

    assert mean_row_of_points(high) < mean_row_of_points(low)  # row 0 is the top
    (picture,) = KDVectorEnv_rendered()
    assert picture.shape == (360, 500, 3)
    assert KDVectorEnv(64, **SHORT).render() is None


def KDVectorEnv_rendered() -> tuple[np.ndarray, ...]:  # noqa: N802
    envs = make_vec(render_mode="rgb_array")
    envs.reset(seed=0)
    return envs.render()


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


def test_a_run_that_is_built_already_is_taken_as_it_is(make_run: MakeRun) -> None:
    run = make_run(batch_size=16)
    assert KDEnv(run=run).run is run
    envs = KDVectorEnv(run=run)
    assert envs.num_envs == 16
    with pytest.raises(UsageError, match="takes no settings"):
        KDEnv(run=run, epochs=3)


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


def test_actions_are_mapped_to_temperatures_by_the_wrapper() -> None:
    envs = TemperatureAction(make_vec(temperature_min=1, temperature_max=16))
    assert envs.action_space == gym.spaces.Box(-1.0, 1.0, (64, 1), dtype=np.float32)
    np.testing.assert_allclose(envs.actions(np.array([[-1.0], [0.0], [1.0]], dtype=np.float32)), [[1], [4], [16]])
    linear = TemperatureAction(make_vec(temperature_min=1, temperature_max=16), scale="linear")
    np.testing.assert_allclose(linear.actions(np.zeros((1, 1), dtype=np.float32)), [[8.5]])
    stock = gym.wrappers.vector.RescaleAction(make_vec(temperature_min=1, temperature_max=16), -1.0, 1.0)
    action = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    np.testing.assert_allclose(linear.actions(action), stock.actions(action), rtol=1e-5)
    single = TemperatureAction(make_vec(temperature_min=4, temperature_max=4))
    for wrapped in (envs, linear, single):
        with pytest.raises(ValueError, match="not a number"):
            wrapped.actions(np.full((64, 1), np.nan, dtype=np.float32))
    with pytest.raises(UsageError, match="positive"):
        TemperatureAction(envs)
    with pytest.raises(TypeError, match="Box"):
        TemperatureAction(gym.make_vec("CartPole-v1", num_envs=2))


def test_without_gymnasium_the_package_still_imports() -> None:
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gymnasium' else find(name, *a)\n"
        "import rlkd_env.runs.config; print('fine')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "fine\n", result.stderr


def test_the_stock_normalisation_wrappers_work() -> None:
    envs = gym.wrappers.vector.NormalizeReward(gym.wrappers.vector.NormalizeObservation(make_vec()))
    envs.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            observation, reward, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()
