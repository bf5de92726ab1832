"""Small vector environments with known answers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class BestActions(VectorEnv):
    """Every slot shows a group, 0 or 1, whose best action is -0.5 or 0.5; the reward is minus the squared distance."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    BEST = (-0.5, 0.5)

    def __init__(self, num_envs: int = 16, length: int = 50) -> None:
        self.num_envs = num_envs
        self.length = length
        self.single_observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.over, self.steps = False, 0
        return self._draw(), {}

    def step(self, actions: np.ndarray) -> Any:
        never = np.zeros(self.num_envs, dtype=bool)
        if self.over:
            return self.reset()[0], np.zeros(self.num_envs), never, never, {}
        reward = -((actions[:, 0] - np.choose(self.group, self.BEST)) ** 2)
        self.steps += 1
        self.over = self.steps == self.length
        return self._draw(), reward, np.full(self.num_envs, self.over), never, {}

    def _draw(self) -> np.ndarray:
        self.group = self.np_random.integers(2, size=self.num_envs)
        return self.group[:, None].astype(np.float32)


class SharedGain(BestActions):
    """Shows every slot the noisy mean of all slots' gains alone; the best action of a group is still its own."""

    def __init__(self, num_envs: int = 64, length: int = 100, noise: float = 0.02) -> None:
        super().__init__(num_envs, length)
        self.noise = noise

    def step(self, actions: np.ndarray) -> Any:
        was_over = self.over
        observation, gain, terminated, truncated, info = super().step(actions)
        if not was_over:
            gain = np.full(self.num_envs, gain.mean() + self.noise * self.np_random.normal())
        return observation, gain, terminated, truncated, info


class Counter(gym.Env):
    """Observes the steps since the reset and ends after ``length`` of them, terminated or truncated."""

    def __init__(self, length: int, truncates: bool = False) -> None:
        self.observation_space = spaces.Box(0.0, 100.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.truncates = length, truncates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"fresh": True}

    def step(self, action: np.ndarray) -> Any:
        self.count += 1
        over = self.count == self.length
        observation = np.full(1, self.count, np.float32)
        info = {"count": self.count}
        return observation, float(action[0]), over and not self.truncates, over and self.truncates, info


class CounterVectorEnv(VectorEnv):
    """Counters of different length in one environment that resets each in the step after its end, and has no masks."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.num_envs = len(lengths)
        self.lengths = np.array(lengths)
        self.single_observation_space = spaces.Box(0.0, 100.0, (1,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = np.zeros(self.num_envs)
        self.over = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> Any:
        restarting = self.over
        self.count = np.where(restarting, 0, self.count + 1)
        self.over = self.count == self.lengths
        reward = np.where(restarting, 0.0, actions[:, 0])
        return self._observe(), reward, self.over.copy(), np.zeros(self.num_envs, dtype=bool), {}

    def _observe(self) -> np.ndarray:
        return self.count[:, None].astype(np.float32)
