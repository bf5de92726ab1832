"""Environments of one batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from image_files import write_folder, write_npz
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "ImageNet", "Arrays", "ImageFolder", "FashionMNIST"])
def test_every_data_set_is_an_environment(name: str, tmp_path: Path) -> None:
    if name == "Arrays":
        path = write_npz(tmp_path / "a.npz")
    elif name in ("ImageFolder", "ImageNet"):
        path = tmp_path
        write_folder(path / "train", {"cat": 40, "dog": 40}, size=24)
        write_folder(path / "val", {"cat": 2, "dog": 2}, size=24)
    else:
        path = tmp_path
        write_npz(path / f"{'fashion_mnist' if name == 'FashionMNIST' else name.lower()}.npz")
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2 if "Image" in name else 4))
    size = 16 if "Image" in name else 8
    teacher(torch.zeros(1, 3, size, size))
    settings = {"image_size": 16} if "Image" in name else {}
    envs = gym.make_vec(
        f"rlkd/{name}-v0",
        num_envs=32,
        data_path=str(path),
        teacher=teacher,
        student="mlp6",
        epochs=1,
        device="cpu",
        **settings,
    )
    envs.reset(seed=0)
    observation, reward, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()


MakeRun = Callable[..., DistillationRun]


SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reward", ["train_progress", "probe_loss", "probe_accuracy"])
def test_gymnasiums_checker_passes_without_a_warning(reward: str) -> None:
    env = gym.make("rlkd/Digits-v0", reward=reward, render_mode="rgb_array", epochs=2, device="cpu")
    check_env(env.unwrapped)


@pytest.mark.filterwarnings("error")
def test_stable_baselines3s_checker_passes_without_a_warning() -> None:
    check_env_for_sb3(gym.make("rlkd/DigitsFlat-v0", epochs=2, device="cpu").unwrapped)


def test_flat_observations_are_the_rows_one_after_another() -> None:
    rows, flat = (gym.make(f"rlkd/Digits{kind}-v0", epochs=2, device="cpu") for kind in ("", "Flat"))
    assert flat.observation_space == gym.spaces.flatten_space(rows.observation_space)
    np.testing.assert_array_equal(flat.reset(seed=1)[0], rows.reset(seed=1)[0].reshape(-1))
    action = np.zeros(64, dtype=np.float32)
    np.testing.assert_array_equal(flat.step(action)[0], rows.step(action)[0].reshape(-1))
    with pytest.raises(UsageError, match="Did you mean 'flat'"):
        KDEnv(observation="flatt", **SHORT)


@pytest.mark.slow
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


def test_a_run_that_is_built_already_is_taken_as_it_is(make_run: MakeRun) -> None:
    run = make_run(batch_size=16)
    assert KDEnv(run=run).run is run
    envs = KDVectorEnv(run=run)
    assert envs.num_envs == 16
    with pytest.raises(UsageError, match="takes no settings"):
        KDEnv(run=run, epochs=3)


@pytest.mark.slow
def test_without_gymnasium_the_package_still_imports() -> None:
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gymnasium' else find(name, *a)\n"
        "import rlkd_env.runs.config; print('fine')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "fine\n", result.stderr
