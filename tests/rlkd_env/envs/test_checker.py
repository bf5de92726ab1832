"""The vector checker must find every way in which an environment can break its contract."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from rlkd_env.envs.checker import VectorEnvError, check_vector_env


class Walk(VectorEnv):
    """A sound environment: three slots walk by their actions for five steps. Subclasses break one thing each."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    num_envs = 3

    def __init__(self) -> None:
        self.single_observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, 3)
        self.action_space = batch_space(self.single_action_space, 3)
        self.over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        self.over = False
        self.position = self.np_random.uniform(-1, 1, (3, 2)).astype(np.float32)
        return self.observe(), {}

    def observe(self) -> Any:
        return self.position.copy()

    def step(self, actions: Any) -> Any:
        never = np.zeros(3, dtype=bool)
        if self.over:
            return self.reset()[0], np.zeros(3), never, never, {}
        self.position = (self.position + actions).clip(-10, 10)
        self.steps += 1
        self.over = self.steps == 5
        return self.observe(), self.position[:, 0].astype(np.float64), np.full(3, self.over), never, {}


def step_returning(index: int, value: Any) -> type[Walk]:
    """Break one of the five things that step returns."""

    class Broken(Walk):
        def step(self, actions: Any) -> Any:
            result = list(super().step(actions))
            result[index] = value
            return tuple(result)

    return Broken


class NoAutoresetMode(Walk):
    metadata = {}  # noqa: RUF012


class UnbatchedSpace(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = self.single_action_space


class InfiniteBounds(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, 3)


class ReturnsItsBuffer(Walk):
    def step(self, actions: Any) -> Any:
        if self.over:
            return super().step(actions)
        self.position += actions
        self.steps += 1
        self.over = self.steps == 5
        never = np.zeros(3, dtype=bool)
        return self.position, np.zeros(3), np.full(3, self.over), never, {}

    def observe(self) -> Any:
        return self.position


class ResetOverwritesTheLastObservation(Walk):
    def step(self, actions: Any) -> Any:
        if self.over:
            last = self.last
            result = super().step(actions)
            last[:] = 0.0
            return result
        result = super().step(actions)
        self.last = result[0]
        return result


class IgnoresItsSeed(Walk):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=np.random.SeedSequence().entropy % 2**31)


class WrongType(Walk):
    def observe(self) -> Any:
        return self.position.astype(np.float64)


class NotANumber(Walk):
    def observe(self) -> Any:
        return self.position * np.float32(np.nan)


class OutsideItsBounds(Walk):
    def observe(self) -> Any:
        return self.position + np.float32(50.0)


class NeverResets(Walk):
    def step(self, actions: Any) -> Any:
        never = np.zeros(3, dtype=bool)
        self.over = False
        self.steps += 1
        return self.observe(), np.ones(3), np.full(3, self.steps >= 5), never, {}


class RewardsTheReset(Walk):
    def step(self, actions: Any) -> Any:
        was_over = self.over
        result = super().step(actions)
        return (result[0], np.ones(3), *result[2:]) if was_over else result


class SameStepWithoutFinalObservation(Walk):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012


class ResetWithoutInfo(Walk):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoAutoresetMode, "autoreset_mode"),
        (UnbatchedSpace, "single space batched"),
        (InfiniteBounds, "finite bounds"),
        (ReturnsItsBuffer, "changed the observations|share their memory"),
        (ResetOverwritesTheLastObservation, "the reset has changed"),
        (IgnoresItsSeed, "another trajectory"),
        (WrongType, "shape .* and type float32"),
        (NotANumber, "not a number"),
        (OutsideItsBounds, "outside its space's bounds"),
        (NeverResets, "must reset it, with reward 0"),
        (RewardsTheReset, "must reset it, with reward 0"),
        (SameStepWithoutFinalObservation, "final_obs"),
        (ResetWithoutInfo, "reset must return"),
        (step_returning(1, np.zeros((3, 1))), "rewards must be an array"),
        (step_returning(1, np.zeros(3, dtype=np.int64)), "rewards must be an array"),
        (step_returning(1, np.array([0.0, np.inf, 0.0])), "reward is not finite"),
        (step_returning(2, np.zeros(3)), "terminations must be"),
        (step_returning(3, [False] * 3), "truncations must be"),
        (step_returning(4, []), "infos as a dict"),
        (step_returning(0, np.zeros((3, 5), dtype=np.float32)), "shape"),
    ],
)
def test_a_broken_environment_is_found_out(broken: type[Walk], message: str) -> None:
    with pytest.raises(VectorEnvError, match=message):
        check_vector_env(broken())


def test_a_sound_environment_passes() -> None:
    check_vector_env(Walk())


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_gymnasiums_own_environments_pass_in_every_autoreset_mode(mode: AutoresetMode, name: str) -> None:
    envs = SyncVectorEnv([lambda: gym.make(name, max_episode_steps=20)] * 3, autoreset_mode=mode)
    check_vector_env(envs)
    envs.close()
