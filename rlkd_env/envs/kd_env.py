"""The KD run as an ordinary Gymnasium environment: one batch is one observation."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from rlkd_env.envs.requests import MAX_SEED, check_observation, check_options, whole_seed
from rlkd_env.envs.stepper import RunStepper
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import ActionKind, ObservationKind


class KDEnv(gym.Env[np.ndarray, np.ndarray]):
    """A KD run as an ordinary environment: one batch is one observation, and the batch reward its reward.

    Observation ``Box(N, d)``: the state of the batch's instances. Action ``Box(N)``: a number for every instance; with
    ``temperatures="separate"`` ``Box(N, 2)``, for the teacher's and the student's temperature. An episode is a run; its
    end is ``terminated``, and so is a divergence, with ``info["diverged"]`` true.

    Every step's ``info`` has the batch's ``loss`` and its parts, ``probe_loss`` and ``probe_accuracy`` where the reward
    has measured them, and the mean ``temperature``; the last one has ``validation_accuracy`` and ``validation_loss``
    of the student too. What is not finite is left out.

    Args:
        action: ``"normalized"``: numbers in ``[-1, 1]``, which are temperatures on a log scale; or ``"temperature"``.
            The registered ids take normalised ones.
        observation: ``"batch"``, or ``"flat"`` for all instances' states one after another, ``Box(N·d)``.
        render_mode: ``"rgb_array"`` for a picture of the batch's temperatures against its difficulty.
        run: a run that is already built, in place of the settings.
        settings: fields of :class:`~rlkd_env.runs.config.RunConfig`, see :class:`~rlkd_env.envs.stepper.RunStepper`.

    Raises:
        UsageError: if a setting is unknown, which is a TypeError too, or invalid.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> env = gym.make("rlkd/Digits-v0", batch_size=32)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.action_space.shape
        ((32, 4), (32,))
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(
        self,
        *,
        action: ActionKind = "temperature",
        observation: ObservationKind = "batch",
        render_mode: str | None = None,
        run: DistillationRun | None = None,
        **settings: Any,
    ) -> None:
        check_observation(observation)
        self.render_mode = render_mode
        self._stepper = RunStepper(KDEnv, settings, run, action, render_mode)
        count, self._is_flat = self.run.batch_size, observation == "flat"
        batch = batch_space(self._stepper.single_observation_space, count)
        self.observation_space = cast("spaces.Box", spaces.flatten_space(batch)) if self._is_flat else batch
        single = self._stepper.single_action_space
        shape = (count,) if single.shape == (1,) else (count, *single.shape)
        self.action_space = spaces.Box(single.low[0], single.high[0], shape, dtype=np.float32)

    @property
    def run(self) -> DistillationRun:
        """The run behind the environment."""
        return self._stepper.run

    @property
    def action_map(self) -> ActionMap | None:
        """The map from normalised actions to temperatures; None where actions are temperatures."""
        return self._stepper.action_map

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a fresh student; the run's seed is ``seed``, or drawn from the environment's generator.

        Raises:
            UsageError: if there are options, as the environment has none.
        """
        check_options(options)
        seed = whole_seed(seed)
        super().reset(seed=seed)
        run_seed = seed if seed is not None else int(self.np_random.integers(MAX_SEED))
        return self._observed(self._stepper.reset([run_seed])), {}

    def step(self, action: np.ndarray | Temperature) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Update the student with actions ``(N,)``, or ``(N, 2)`` where teacher and student have their own.

        The temperatures of a policy, on the run's device, are not clipped.
        """
        if not isinstance(action, Temperature):
            if np.shape(action) != self.action_space.shape:
                names, shape = self._stepper.action_names, self.action_space.shape
                raise ValueError(f"expected {names} of shape {shape}, got {np.shape(action)}")
            action = np.reshape(action, (len(action), -1))
        transition = self._stepper.step(action)
        terminated, has_diverged = transition.is_over, bool(transition.diverged[0])
        figures = transition.figures
        if terminated and not has_diverged:
            figures |= self._stepper.student_figures()
        info: dict[str, Any] = {name: float(value[0]) for name, value in figures.items() if np.isfinite(value[0])}
        if terminated:
            info["diverged"] = has_diverged
        return self._observed(transition.observation), float(transition.reward[0]), terminated, False, info

    def render(self) -> np.ndarray | None:
        """Return the picture ``(height, width, 3)``, or None without a render mode."""
        return self._stepper.render() if self.render_mode else None

    def _observed(self, states: np.ndarray) -> np.ndarray:
        return states.reshape(-1) if self._is_flat else states
