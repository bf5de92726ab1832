"""What an agent may be made for, and what is put around it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor
from toy_envs import BestActions, SharedGain

from agents.sb3.make import make_agent
from agents.sb3.monitor import RunMonitor
from agents.sb3.vec_env import VectorEnvAdapter
from agents.sb3.wrapping import as_vec_env
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

QUICK: dict[str, Any] = {"epochs": 2, "device": "cpu"}


def slots(**settings: Any) -> Any:
    return gym.make_vec("rlkd/Digits-v0", num_envs=64, **QUICK, **settings)


def layers(env: VecEnv) -> list[type]:
    """The classes from the outermost in, those of Gymnasium below the adapter included."""
    found, inner = [type(env)], getattr(env, "venv", getattr(env, "env", None))
    while inner is not None:
        found.append(type(inner))
        inner = getattr(inner, "venv", getattr(inner, "env", None))
    return found


@pytest.mark.parametrize(
    "create",
    [
        lambda: "rlkd/Digits-v0",
        lambda: gym.make("rlkd/Digits-v0", **QUICK),
        slots,
        lambda: slots(action="temperature"),
        lambda: gym.make("rlkd/Digits-v0", action="temperature", **QUICK),
        lambda: TemperatureAction(slots(action="temperature"), "linear"),
        lambda: CalibratedReward(slots(), "last_layer"),
    ],
    ids=["id", "single", "slots", "temperatures", "single of temperatures", "wrapped", "calibrated"],
)
def test_instances_become_slots_with_what_was_missing(create: Callable[[], Any]) -> None:
    env = as_vec_env(create())
    found = layers(env)
    assert (env.num_envs, env.observation_space.shape, env.action_space.shape) == (64, (4,), (1,))
    assert (env.action_space.low, env.action_space.high) == (-1.0, 1.0)
    assert found[:2] == [RunMonitor, VectorEnvAdapter]
    assert found.count(CalibratedReward) == 1
    assert found.count(TemperatureAction) <= 1


def test_a_time_limit_of_a_single_environment_stays() -> None:
    env = as_vec_env(gym.make("rlkd/Digits-v0", max_episode_steps=3, **QUICK))
    env.reset()
    ends = [env.step(np.zeros((64, 1), np.float32))[2].all() for _ in range(3)]
    assert ends == [False, False, True]


def test_an_environment_that_somebody_has_wrapped_stays_as_it_is() -> None:
    env = as_vec_env(gym.wrappers.ClipReward(gym.make("rlkd/Digits-v0", action="temperature", **QUICK), -1.0, 1.0))
    assert (env.num_envs, env.observation_space.shape) == (1, (64, 4))
    assert env.action_space.high.max() == 1.0
    assert isinstance(env.venv, DummyVecEnv)  # type: ignore[attr-defined]


def test_a_monitor_is_not_put_around_another_one() -> None:
    env = VecMonitor(VectorEnvAdapter(slots()))
    assert as_vec_env(env) is env


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("rlkd/Digit-v0", "there is no environment"),
        ("Pendulum-v1", "agents act in"),
        (3, "not for int"),
    ],
)
def test_what_is_no_environment_for_agents_is_refused(env: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_agent("ppo", env)


def warnings_of(create: Callable[[], VecEnv], steps: int = 40) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = create()
        env.reset()
        for _ in range(steps):
            env.step(np.zeros((env.num_envs, 1), np.float32))
    return [str(one.message) for one in caught if "CalibratedReward" in str(one.message)]


@pytest.mark.parametrize(
    ("create", "count"),
    [
        (lambda: as_vec_env(SharedGain()), 1),  # nothing says that its slots share a reward
        (lambda: as_vec_env(VectorEnvAdapter(slots())), 1),
        (lambda: as_vec_env(slots()), 0),  # which is shared out
        (lambda: as_vec_env(SharedGain(), "uniform"), 0),  # which is meant
        (lambda: as_vec_env(BestActions()), 0),
        (lambda: as_vec_env(CalibratedReward(SharedGain())), 0),
    ],
    ids=["foreign", "VecEnv", "ours", "asked for", "own rewards", "calibrated"],
)
def test_a_reward_that_all_slots_share_is_told_once(create: Callable[[], VecEnv], count: int) -> None:
    found = warnings_of(create)
    assert len(found) == count


@pytest.mark.slow
def test_stable_baselines3_alone_learns_on_it_too() -> None:
    agent = PPO("MlpPolicy", as_vec_env(slots()), n_steps=4, batch_size=256, seed=0)
    agent.learn(64 * 16)
    assert len(agent.ep_info_buffer) == 2  # runs of 8 updates
