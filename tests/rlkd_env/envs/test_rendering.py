"""Pictures of the temperatures."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.envs.vector_env import KDVectorEnv

SHORT = {"epochs": 2, "device": "cpu", "action": "temperature"}


def make_vec(num_envs: int = 64, **settings: object) -> KDVectorEnv:
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, **{**SHORT, **settings})


@pytest.mark.slow
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
    pictures = KDVectorEnv_rendered()
    assert len(pictures) == 64
    assert all(picture.shape == (360, 500, 3) for picture in pictures)
    assert KDVectorEnv(64, **SHORT).render() is None


def KDVectorEnv_rendered() -> tuple[np.ndarray, ...]:  # noqa: N802
    envs = make_vec(render_mode="rgb_array")
    envs.reset(seed=0)
    return envs.render()
