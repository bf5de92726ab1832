"""What both environments share: the range, clipped and refused actions, and seeds."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]

SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


def test_the_default_range_is_in_units_of_the_teachers_logit_deviation(make_run: MakeRun) -> None:
    run = make_run()
    bounds = run.temperature_range
    assert bounds.maximum / bounds.minimum == pytest.approx(32.0)


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
