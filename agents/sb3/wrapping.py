"""From whatever a client has, an id, an environment or a vector environment, to what an agent learns on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, is_vecenv_wrapped

from agents.sb3.monitor import RunMonitor
from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import CalibratedReward, SingleTemperatureAction, TemperatureAction

SHARED_OUT = "return_decomposition"
"""The calibrator that shares a batch reward out among the slots unless another one is asked for."""
NOT_SHARED_OUT = "uniform"
"""The calibrator that leaves the batch reward to every slot."""
_OF_MAKE = (OrderEnforcing, PassiveEnvChecker, TimeLimit)
"""Wrappers that ``gym.make`` puts around an environment."""

AnyEnv = str | gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv
"""What an agent may be made for."""


def as_vec_env(env: AnyEnv, calibrator: str = SHARED_OUT) -> VecEnv:
    """Return stable-baselines3's ``VecEnv`` of an environment, with whatever is missing for an agent to learn on it.

    * An id is made, with one slot for every instance of the batch. So is an environment of ``gym.make`` that nobody has
      wrapped: its instances become slots of the same run, since an agent that sees a whole batch at once learns nothing
      within a run. Other environments, wrapped ones among them, are taken as they are.
    * Temperatures as actions become numbers in ``[-1, 1]`` (:class:`~rlkd_env.wrappers.TemperatureAction`).
    * A reward that all slots of a run share is shared out among them
      (:class:`~rlkd_env.wrappers.CalibratedReward`), unless that is done already, or there are several runs.
    * Episodes are counted (:class:`~agents.sb3.monitor.RunMonitor`), unless somebody does so already. Where the slots
      still share a reward, and nobody has asked for that, there is a warning.

    Args:
        env: an id of Gymnasium, an environment, a vector environment, or a ``VecEnv``, which gets a monitor only.
        calibrator: how a shared reward is shared out; ``"uniform"`` leaves it as it is.

    Raises:
        UsageError: if it is none of these, or actions are neither numbers in ``[-1, 1]`` nor temperatures.

    Example:
        >>> import rlkd_env
        >>> from stable_baselines3.common.evaluation import evaluate_policy
        >>> from agents.sb3 import make_agent
        >>> envs = as_vec_env("rlkd/Digits-v0", calibrator="uniform")
        >>> envs.num_envs, envs.num_runs
        (64, 1)
    """
    if isinstance(env, str):
        env = _make(env)
    if isinstance(env, gym.Env):
        env = _slots_of(env)
    if isinstance(env, VectorEnv):
        env = _with_actions(env)
        if _shares_reward(env) and not _is_calibrated(env) and calibrator != NOT_SHARED_OUT:
            env = CalibratedReward(env, calibrator)
        env = VectorEnvAdapter(env)
    if not isinstance(env, VecEnv):
        raise UsageError(
            "an agent is made for an id of Gymnasium, an environment, a vector environment or a VecEnv, not for "
            f"{type(env).__name__}"
        )
    _check_actions(env.action_space)
    is_monitored = is_vecenv_wrapped(env, VecMonitor) or all(env.env_is_wrapped(Monitor))
    if is_monitored:
        return env
    is_calibrated = isinstance(env, VectorEnvAdapter) and _is_calibrated(env.env)
    return RunMonitor(env, warns_of_shared_rewards=not is_calibrated and calibrator != NOT_SHARED_OUT)


def _make(name: str) -> gym.Env[Any, Any]:
    """Return the environment of an id."""
    try:
        return gym.make(name)
    except gym.error.Error as error:
        raise UsageError(f"there is no environment {name!r}: {error}") from None


def _slots_of(env: gym.Env[Any, Any]) -> VectorEnv[Any, Any, Any] | VecEnv:
    """Return the instances of a run as slots of a vector environment, or another environment as the only slot."""
    layer, most_steps = env, None
    while isinstance(layer, _OF_MAKE):
        if isinstance(layer, TimeLimit):
            most_steps = layer._max_episode_steps
        layer = layer.env
    if isinstance(layer, KDEnv):
        return KDVectorEnv(
            run=layer.run,
            action="temperature" if layer.action_map is None else "normalized",
            max_episode_steps=most_steps,
            render_mode=layer.render_mode,
        )
    if isinstance(env.unwrapped, KDEnv) and not _is_normalized(env.action_space):
        scaled = SingleTemperatureAction(env)
        return DummyVecEnv([lambda: scaled])
    return DummyVecEnv([lambda: env])


def _with_actions(env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Return a vector environment whose actions are no temperatures."""
    is_ours = isinstance(env.unwrapped, KDVectorEnv)
    return TemperatureAction(env) if is_ours and not _is_normalized(env.single_action_space) else env


def _shares_reward(env: VectorEnv[Any, Any, Any]) -> bool:
    """Tell whether all slots are instances of one run."""
    return getattr(env.unwrapped, "num_runs", env.num_envs) == 1 < env.num_envs


def _is_calibrated(env: VectorEnv[Any, Any, Any]) -> bool:
    while isinstance(env, VectorWrapper):
        if isinstance(env, CalibratedReward):
            return True
        env = env.env
    return False


def _is_normalized(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and bool(np.all(space.low == -1.0) and np.all(space.high == 1.0))


def _check_actions(space: spaces.Space[Any]) -> None:
    if isinstance(space, spaces.Box) and not _is_normalized(space):
        raise UsageError(
            f"agents act in [-1, 1], not in {space}: wrap the environment in TemperatureAction or RescaleAction"
        )
