"""A vector environment whose best temperatures are known, to see what an agent learns within a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

LOWEST, HIGHEST = 0.74, 23.6
"""The range of temperatures, which is that of Digits."""
BEST_LOWEST, BEST_HIGHEST = 1.0, 16.0
"""The best temperatures of instances whose feature is 0 and 1."""
UPDATES = 480
"""Steps of a run, as many as those of Digits."""
_GAIN = 1e-3
"""The size of a batch's rewards, which is that of an update on the loss of probe images."""
_NOISE = 3e-5
"""Deviation of the noise in a batch's reward."""
_FEATURES = 4


class KnownBestTemperatures(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Slots like those of a run: log T of the best temperature is linear in an instance's first feature.

    An instance has three features that are drawn from [0, 1], of which two say nothing, and the progress of the run.
    All slots earn the batch's reward, the sum of what a student gains anyway, which falls along the run, of what the
    temperatures bring, and of noise. A temperature brings the more the nearer it is to the best one: 1e-3 times the
    square of the distance in log T of the action 0, less that of its own. Actions in ``[-1, 1]`` are temperatures from
    0.74 to 23.6 on a log scale; an episode has 480 steps. The best constant temperature is off by 0.80 in log T.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (Gymnasium's own form)
    num_runs = 1

    def __init__(self, num_envs: int = 64) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0.0, 1.0, (_FEATURES,), dtype=np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._is_over = True
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a run."""
        super().reset(seed=seed, options=options)
        self._is_over, self._steps = False, 0
        return self._draw(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Earn what the temperatures of the actions ``(N, 1)`` are worth."""
        never = np.zeros(self.num_envs, dtype=bool)
        if self._is_over:
            return self.reset()[0], np.zeros(self.num_envs, dtype=np.float32), never, never, {}
        best = best_log_temperature(self._observation)
        chosen = log_temperature(np.clip(actions[:, 0], -1.0, 1.0))
        gain = (log_temperature(np.zeros(1)) - best) ** 2 - (chosen - best) ** 2
        student = (1.0 - self._steps / UPDATES) ** 2
        reward = _GAIN * (student + float(gain.mean())) + _NOISE * self.np_random.normal()
        self._steps += 1
        self._is_over = self._steps == UPDATES
        rewards = np.full(self.num_envs, reward, dtype=np.float32)
        return self._draw(), rewards, np.full(self.num_envs, self._is_over), never, {}

    def _draw(self) -> np.ndarray:
        self._observation = self.np_random.random((self.num_envs, _FEATURES), dtype=np.float32)
        self._observation[:, -1] = self._steps / UPDATES
        return self._observation.copy()


def log_temperature(actions: np.ndarray) -> np.ndarray:
    """Return log T of actions in ``[-1, 1]``."""
    low, high = math.log(LOWEST), math.log(HIGHEST)
    return low + (high - low) * (actions + 1.0) / 2.0


def best_log_temperature(observation: np.ndarray) -> np.ndarray:
    """Return log T of the best temperatures ``(N,)`` of instances with these features ``(N, 4)``."""
    low, high = math.log(BEST_LOWEST), math.log(BEST_HIGHEST)
    return low + (high - low) * observation[:, 0]
