"""Actions in [-1, 1] in place of temperatures."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import TemperatureAction

SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


def make_vec(num_envs: int = 64, **settings: object) -> KDVectorEnv:
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, **{**SHORT, **settings})


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
    with pytest.raises(UsageError, match="already"):
        TemperatureAction(envs)
    with pytest.raises(TypeError, match="Box"):
        TemperatureAction(gym.make_vec("CartPole-v1", num_envs=2))
