"""Checks that a Gymnasium vector environment keeps its contract; Gymnasium itself has them for single ones only."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class VectorEnvError(AssertionError):
    """The environment breaks the contract; the message says where."""


def check_vector_env(env: VectorEnv[Any, Any, Any], seed: int = 0, max_steps: int = 1000) -> None:
    """Check a vector environment with Box observations over two episodes of random actions.

    Held against the contract: batched spaces and their bounds, shapes and types of everything returned, arrays that
    belong to the caller, the same trajectory from the same seed, finite rewards, and the declared autoreset.
    """
    mode = env.metadata.get("autoreset_mode")
    _require(isinstance(mode, AutoresetMode), f"metadata['autoreset_mode'] must be an AutoresetMode, not {mode!r}")
    _check_spaces(env)
    first = _rollout(env, seed, max_steps)
    second = _rollout(env, seed, max_steps)
    _require(len(first) == len(second), "the same seed and actions gave episodes of different length")
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        same = all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))
        _require(same, f"the same seed and actions gave another trajectory at step {step}")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise VectorEnvError(message)


def _check_spaces(env: VectorEnv[Any, Any, Any]) -> None:
    _require(env.num_envs >= 1, f"num_envs must be at least 1, not {env.num_envs}")
    observation = env.single_observation_space
    _require(isinstance(observation, spaces.Box), f"this checker knows Box observations only, not {observation}")
    for name, single, batched in (
        ("observation", observation, env.observation_space),
        ("action", env.single_action_space, env.action_space),
    ):
        expected = batch_space(single, env.num_envs)
        _require(batched == expected, f"{name}_space must be {expected}, the single space batched, not {batched}")
        if isinstance(single, spaces.Box):
            finite = np.isfinite(single.low).all() and np.isfinite(single.high).all()
            _require(finite, f"the {name} space must have finite bounds, not {single}")


def _rollout(env: VectorEnv[Any, Any, Any], seed: int, max_steps: int) -> list[tuple[np.ndarray, ...]]:
    """Follow one episode and the step after its end; return what the environment returned."""
    result = env.reset(seed=seed)
    _require(isinstance(result, tuple) and len(result) == 2, "reset must return observations and infos")
    observation, info = result
    _check_observation(env, observation, "reset")
    _require(isinstance(info, dict), "reset must return its infos as a dict")
    env.action_space.seed(seed)
    trajectory: list[tuple[np.ndarray, ...]] = [(observation,)]
    previous, kept = observation, observation.copy()
    for _ in range(max_steps):
        transition = _checked_step(env)
        _require(np.array_equal(previous, kept), "step has changed the observations that were returned before")
        _require(not np.shares_memory(previous, transition[0]), "two returned observations share their memory")
        trajectory.append(transition[:4])
        observation, _, terminated, truncated, info = transition
        if (terminated | truncated).any():
            trajectory.append(_check_end(env, terminated | truncated, observation, info))
            break
        previous, kept = observation, observation.copy()
    return trajectory


def _checked_step(env: VectorEnv[Any, Any, Any]) -> tuple[Any, ...]:
    """Step with random actions and check everything but the meaning of an episode's end."""
    result = env.step(env.action_space.sample())
    _require(
        isinstance(result, tuple) and len(result) == 5,
        "step must return observations, rewards, terminations, truncations and infos",
    )
    observation, reward, terminated, truncated, info = result
    _check_observation(env, observation, "step")
    _check_array("rewards", reward, env.num_envs, np.floating)
    _require(np.isfinite(reward).all(), "a reward is not finite")
    _check_array("terminations", terminated, env.num_envs, np.bool_)
    _check_array("truncations", truncated, env.num_envs, np.bool_)
    _require(isinstance(info, dict), "step must return its infos as a dict")
    return result


def _check_array(name: str, array: Any, num_envs: int, kind: type) -> None:
    is_array = isinstance(array, np.ndarray) and array.shape == (num_envs,) and np.issubdtype(array.dtype, kind)
    _require(is_array, f"{name} must be an array of shape ({num_envs},) and kind {kind.__name__}, not {array!r}")


def _check_observation(env: VectorEnv[Any, Any, Any], observation: Any, source: str) -> None:
    space = env.observation_space
    fits = isinstance(observation, np.ndarray) and observation.shape == space.shape and observation.dtype == space.dtype
    _require(fits, f"{source} must return observations of shape {space.shape} and type {space.dtype}")
    _require(not np.isnan(observation).any(), f"{source} returned an observation that is not a number")
    _require(space.contains(observation), f"{source} returned an observation outside its space's bounds")


def _check_end(
    env: VectorEnv[Any, Any, Any], done: np.ndarray, observation: np.ndarray, info: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """Check that what ended starts anew as the declared autoreset mode says; return the observations after it."""
    mode = env.metadata["autoreset_mode"]
    if mode is AutoresetMode.SAME_STEP:
        for slot in np.flatnonzero(done):
            final = info.get("final_obs", [None] * env.num_envs)[slot]
            fits = final is not None and env.single_observation_space.contains(final)
            _require(fits, f"same-step autoreset must give slot {slot}'s last observation in infos['final_obs']")
        return (observation,)
    last = observation.copy()
    if mode is AutoresetMode.DISABLED:
        fresh, _ = env.reset(options={"reset_mask": done.copy()})
        _check_observation(env, fresh, "reset with a mask")
    else:
        fresh, reward, terminated, truncated, _ = _checked_step(env)
        _require((reward[done] == 0).all(), "the step after an episode's end must reset it, with reward 0")
        _require(not (terminated | truncated)[done].any(), "the step after an episode's end must not end the next one")
    _require(np.array_equal(observation, last), "the reset has changed the last observations that were returned")
    return (fresh,)
