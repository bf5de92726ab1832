"""Every wrapper of Gymnasium around our environments: it works, or it refuses them itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.wrappers import __all__ as single_names
from gymnasium.wrappers.vector import __all__ as vector_names

SHORT = {"epochs": 1, "device": "cpu", "reward": "train_progress", "render_mode": "rgb_array"}
UNIT = spaces.Box(-1.0, 1.0, (64,), np.float32)
SINGLE: dict[str, dict[str, Any]] = {
    "DelayObservation": {"delay": 2},
    "DtypeObservation": {"dtype": np.float64},
    "DiscretizeObservation": {"bins": 4},
    "FilterObservation": {"filter_keys": ["state"]},
    "FrameStackObservation": {"stack_size": 2},
    "TransformObservation": {"func": lambda observation: observation, "observation_space": None},
    "ResizeObservation": {"shape": (8, 8)},
    "ReshapeObservation": {"shape": (256,)},
    "RescaleObservation": {"min_obs": np.float32(0.0), "max_obs": np.float32(1.0)},
    "DiscretizeAction": {"bins": 4},
    "TransformAction": {"func": lambda action: action, "action_space": UNIT},
    "RescaleAction": {"min_action": np.float32(0.0), "max_action": np.float32(1.0)},
    "StickyAction": {"repeat_action_probability": 0.5},
    "RepeatAction": {"num_repeats": 2},
    "ClipReward": {"min_reward": -1.0, "max_reward": 1.0},
    "TransformReward": {"func": lambda reward: reward},
    "TimeLimit": {"max_episode_steps": 2},
    "AddWhiteNoise": {"probability_of_noise_per_pixel": 0.1},
    "ObstructView": {"obstructed_pixels_ratio": 0.1, "obstruction_width": 2},
    "NumpyToTorch": {},
    "ArrayConversion": {"env_xp": np, "target_xp": np},
}
VECTOR: dict[str, dict[str, Any]] = {
    "TransformObservation": {"func": lambda observation: observation},
    "FilterObservation": {"filter_keys": ["state"]},
    "ResizeObservation": {"shape": (8, 8)},
    "ReshapeObservation": {"shape": (2, 2)},
    "RescaleObservation": {"min_obs": np.float32(0.0), "max_obs": np.float32(1.0)},
    "DtypeObservation": {"dtype": np.float64},
    "VectorizeTransformObservation": {
        "wrapper": gym.wrappers.DtypeObservation,
        "dtype": np.float64,
    },
    "TransformAction": {"func": lambda action: action, "action_space": None},
    "RescaleAction": {"min_action": np.float32(0.0), "max_action": np.float32(1.0)},
    "VectorizeTransformAction": {"wrapper": gym.wrappers.ClipAction},
    "TransformReward": {"func": lambda reward: reward},
    "VectorizeTransformReward": {"wrapper": gym.wrappers.ClipReward, "min_reward": -1.0, "max_reward": 1.0},
    "ClipReward": {"min_reward": -1.0, "max_reward": 1.0},
    "ArrayConversion": {"env_xp": np, "target_xp": np},
}
REFUSED = {
    "DiscretizeObservation": "counts",  # 4 to the power of 256 values
    "DiscretizeAction": "counts",
    "FilterObservation": "only usable with `Dict`",
    "GrayscaleObservation": "requires an image",
    "ResizeObservation": "requires",  # an image too
    "AtariPreprocessing": "Atari",  # a game
}


def make(name: str, namespace: Any, env: Any, keywords: dict[str, Any], folder: Path) -> Any:
    if name == "RecordVideo":
        keywords = {"video_folder": str(folder), "video_length": 2, "step_trigger": lambda step: step == 0}
    return getattr(namespace, name)(env, **keywords)


def check(name: str, env: Any, is_single: bool) -> None:
    observation, info = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        assert info
        assert np.isfinite(np.asarray(reward)).all()
        if is_single and (terminated or truncated):
            break
    if not name.endswith(("ToTorch", "ToJax", "ToNumpy")):
        assert observation in env.observation_space
    env.close()


CASES = [(True, name) for name in single_names if name != "vector"] + [(False, name) for name in vector_names]


@pytest.mark.slow
@pytest.mark.parametrize(("is_single", "name"), CASES)
def test_it_works_or_gymnasium_refuses(is_single: bool, name: str, tmp_path: Path) -> None:
    settings = {**SHORT, "max_episode_steps": 50}
    if is_single:
        env, namespace, keywords = gym.make("rlkd/Digits-v0", **settings), gym.wrappers, SINGLE.get(name, {})
    else:
        env = gym.make_vec("rlkd/Digits-v0", num_envs=64, **settings)
        namespace, keywords = gym.wrappers.vector, VECTOR.get(name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if name in REFUSED:
                with pytest.raises((ValueError, AttributeError, AssertionError), match=REFUSED[name]):
                    make(name, namespace, env, keywords, tmp_path)
                return
            check(name, make(name, namespace, env, keywords, tmp_path), is_single)
        except (DependencyNotInstalled, ImportError) as error:
            pytest.skip(f"Gymnasium wants more for it: {error}")
    if name == "RecordVideo":
        assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]
