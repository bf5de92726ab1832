"""Copies of environments, before and in the middle of a run, go on as the original does, bit for bit."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from image_files import write_folder

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import CalibratedReward, EfficientExploration, TemperatureAction

SHORT = {"epochs": 3, "device": "cpu"}


def slots(**settings: Any) -> Any:
    return gym.make_vec("rlkd/Digits-v0", **{"num_envs": 16, **SHORT, **settings})


MAKE: dict[str, Callable[[], Any]] = {
    "single": lambda: gym.make("rlkd/Digits-v0", batch_size=16, render_mode="rgb_array", **SHORT),
    "slots": slots,
    "method and sampler with a state": lambda: slots(method="crd", student="digits_cnn", curriculum_phases=3),
    **{
        f"{mode} runs": lambda mode=mode: slots(num_envs=32, num_runs=2, run_mode=mode)
        for mode in ("stacked", "serial")
    },
    "runs in processes": lambda: slots(num_envs=32, num_runs=2, run_mode="workers"),
    **{name: lambda name=name: CalibratedReward(slots(), name) for name in ("return_decomposition", "last_layer")},
    "exploration": lambda: EfficientExploration(slots(), Exploration(first_epoch=2, last_epoch=3, interval=1)),
    "temperatures": lambda: TemperatureAction(slots(action="temperature")),
}
COPY: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "cloudpickle": lambda env: pickle.loads(cloudpickle.dumps(env)),
}


def steps(env: Any, count: int) -> list[np.ndarray]:
    generator, found = np.random.default_rng(0), []
    for _ in range(count):
        observation, reward, *_ = env.step(generator.uniform(-1, 1, env.action_space.shape).astype(np.float32))
        found += [observation, np.asarray(reward)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_a_copy_goes_on_as_the_original(name: str) -> None:
    original = MAKE[name]()
    copies = {f"{how} before the reset": make_copy(original) for how, make_copy in COPY.items()}
    for env in (original, *copies.values()):
        env.reset(seed=3)
        steps(env, 7)
    copies |= {f"{how} in the middle": make_copy(original) for how, make_copy in COPY.items()}
    expected = steps(original, 8)
    for kind, env in copies.items():
        for found, wanted in zip(steps(env, 8), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=kind)
        env.close()
    original.close()


def test_a_copy_shares_data_and_teacher_and_its_wrappers_look_at_its_own_run() -> None:
    env = EfficientExploration(CalibratedReward(slots(), "last_layer"), Exploration(first_epoch=2, last_epoch=3))
    env.reset(seed=0)
    copied = copy.deepcopy(env)
    run, other = env.unwrapped.run, copied.unwrapped.run
    assert other is not run
    assert other.teacher is run.teacher
    assert other.splits is run.splits
    assert copied.explorer is other.sampler is not run.sampler
    assert other.hooks == (copied.env.hook,)
    assert run.hooks == (env.env.hook,)


EPISODES = """
import sys
import gymnasium as gym, torch, rlkd_env
settings = dict(data_path=sys.argv[1], image_size=16, augmentation="resized_crop", workers=1, student="mlp6")
teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
envs = gym.make_vec("rlkd/ImageFolder-v0", num_envs=16, teacher=teacher, epochs=1, device="cpu", **settings)
for episode in range(6):
    envs.reset(seed=episode)
    for _ in range(2):
        envs.step(envs.action_space.sample())
"""


@pytest.mark.slow
def test_processes_that_read_ahead_end_without_a_word(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 40, "dog": 40}, size=24)
    write_folder(tmp_path / "val", {"cat": 2, "dog": 2}, size=24)
    command = [sys.executable, "-W", "ignore", "-c", EPISODES, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in result.stderr.splitlines() if not line.startswith(f"rlkd: {tmp_path}")]  # the classes
    assert (result.returncode, told) == (0, [])
