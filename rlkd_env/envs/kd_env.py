"""The KD run as an ordinary Gymnasium environment: one batch is one observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from rlkd_env.envs.stepper import RunStepper
from rlkd_env.runs.run import DistillationRun

_MAX_SEED = 2**31 - 1


class KDEnv(gym.Env[np.ndarray, np.ndarray]):
    """A KD run as an ordinary environment: one batch is one observation, and the batch reward its reward.

    Observation ``Box(N, d)``: the state of the batch's instances. Action ``Box(N)``: their temperatures; with
    ``temperatures="separate"`` ``Box(N, 2)``, the teacher's and the student's. An episode is a run; its end is
    ``terminated``, and so is a divergence, with ``info["diverged"]`` true.

    Args:
        render_mode: ``"rgb_array"`` for a picture of the batch's temperatures against its difficulty.
        run: a run that is already built, in place of the settings.
        settings: fields of :class:`~rlkd_env.runs.config.RunConfig`, see :class:`~rlkd_env.envs.stepper.RunStepper`.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> env = gym.make("rlkd/Digits-v0", batch_size=32)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.action_space.shape
        ((32, 4), (32,))
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, *, render_mode: str | None = None, run: DistillationRun | None = None, **settings: Any) -> None:
        self.render_mode = render_mode
        self._stepper = RunStepper(settings, run, render_mode)
        single, count = self._stepper.single_observation_space, self.run.batch_size
        self.observation_space = batch_space(single, count)
        action = self._stepper.single_action_space
        shape = (count,) if action.shape == (1,) else (count, *action.shape)
        self.action_space = spaces.Box(action.low[0], action.high[0], shape, dtype=np.float32)

    @property
    def run(self) -> DistillationRun:
        """The run behind the environment."""
        return self._stepper.run

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a fresh student; the run's seed is ``seed``, or drawn from the environment's generator."""
        super().reset(seed=seed, options=options)
        run_seed = seed if seed is not None else int(self.np_random.integers(_MAX_SEED))
        return self._stepper.reset(run_seed), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Update the student with the temperatures ``(N,)``, or ``(N, 2)`` where they are separate."""
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"expected temperatures of shape {self.action_space.shape}, got {np.shape(action)}")
        transition = self._stepper.step(np.reshape(action, (len(action), -1)))
        terminated = transition.is_over
        info = {"diverged": bool(transition.diverged[0])} if terminated else {}
        return transition.observation, float(transition.reward[0]), terminated, False, info

    def render(self) -> np.ndarray | None:
        """Return the picture ``(height, width, 3)``, or None without a render mode."""
        return self._stepper.render() if self.render_mode else None
