"""The KD run as Gymnasium environments: one batch an observation, or one instance a slot."""

from __future__ import annotations

import multiprocessing
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import nn

from rlkd_env.config import RunConfig, build_run
from rlkd_env.data import DataSource
from rlkd_env.registry import UsageError
from rlkd_env.rendering import TemperaturePlot
from rlkd_env.run import DistillationRun, StepResult
from rlkd_env.temperature import Temperature

_MAX_SEED = 2**31 - 1


class Transition(NamedTuple):
    """What an environment hands to the host after an update.

    Attributes:
        observation: ``(N, d)`` float32.
        reward: of the batch.
        finished: whether the schedule is over.
        diverged: whether loss or logits stopped being finite.
    """

    observation: np.ndarray
    reward: float
    finished: bool
    diverged: bool


class RunStepper:
    """What :class:`KDEnv` and :class:`KDVectorEnv` share: NumPy in, NumPy out, one copy from the device a step.

    Args:
        keywords: fields of :class:`~rlkd_env.config.RunConfig`; besides its names, ``dataset`` may be a
            :class:`~rlkd_env.data.DataSource`, ``teacher`` a network and ``student`` a function that creates one.
        run: a run that is built already, in place of the keywords.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        UsageError: if a setting is unknown or invalid.
    """

    def __init__(self, keywords: dict[str, Any], run: DistillationRun | None, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"unknown render_mode {render_mode!r}. Valid: rgb_array")
        if run is not None and keywords:
            raise UsageError(f"a run that is built already takes no settings, got {sorted(keywords)}")
        _use_one_thread_in_workers()
        self.run = run if run is not None else _build(keywords)
        self._plot: TemperaturePlot | None = None
        self._last_result: StepResult | None = None

    @property
    def single_observation_space(self) -> spaces.Box:
        """State of one instance, ``(d,)``."""
        state = self.run.state
        return spaces.Box(state.low.cpu().numpy(), state.high.cpu().numpy(), dtype=np.float32)

    @property
    def single_action_space(self) -> spaces.Box:
        """Temperature of one instance, ``(1,)``."""
        chosen = self.run.temperature_range
        return spaces.Box(np.float32(chosen.minimum), np.float32(chosen.maximum), (1,), dtype=np.float32)

    def reset(self, seed: int) -> np.ndarray:
        """Start a run and return the first observation ``(N, d)``."""
        self._last_result = None
        return self.run.reset(seed).cpu().numpy().copy()

    def observe(self) -> np.ndarray:
        """Return the current observation ``(N, d)`` without stepping."""
        return self.run.observe().cpu().numpy().copy()

    def step(self, action: np.ndarray) -> Transition:
        """Update the student with the temperatures ``(N,)``; values outside the range are clipped to it.

        Raises:
            ValueError: if the shape is wrong or a value is not a number.
        """
        temperature = np.asarray(action, dtype=np.float32)
        if temperature.shape != (self.run.batch_size,):
            raise ValueError(f"expected {self.run.batch_size} temperatures, got an action of shape {temperature.shape}")
        if np.isnan(temperature).any():
            raise ValueError("a temperature is not a number")
        chosen = self.run.temperature_range
        clipped = torch.from_numpy(temperature.clip(chosen.minimum, chosen.maximum)).to(self.run.device)
        result = self._last_result = self.run.step(Temperature.shared(clipped))
        scalars = torch.stack([result.reward, result.diverged.to(result.reward.dtype)])
        packed = torch.cat([result.state.flatten(), scalars]).cpu().numpy()
        observation = packed[:-2].reshape(result.state.shape).copy()
        return Transition(observation, float(packed[-2]), result.finished, bool(packed[-1]))

    def render(self) -> np.ndarray:
        """Draw the last batch's temperatures against its difficulty as ``(height, width, 3)`` uint8.

        Raises:
            RuntimeError: before the first reset.
        """
        if self.run.seed < 0:
            raise RuntimeError("there is nothing to render: call reset()")
        if self._plot is None:
            self._plot = TemperaturePlot(
                self.run.temperature_range,
                horizontal="difficulty (1 − student's p of the true class)",
                colour="teacher's p of the true class",
            )
        outputs = self._last_result.outputs if self._last_result else self.run.outputs
        temperature = self._last_result.temperature.student if self._last_result else torch.empty(0)
        count = len(temperature)
        return self._plot.draw(
            horizontal=1.0 - outputs.true_class(outputs.student_probabilities)[:count].cpu().numpy(),
            temperature=temperature.cpu().numpy(),
            colour=outputs.true_class(outputs.teacher_probabilities)[:count].cpu().numpy(),
            title=f"update {self.run.step_count} of {self.run.total_steps}",
        )


def _use_one_thread_in_workers() -> None:
    """Keep torch to one thread in the worker processes of an ``AsyncVectorEnv``.

    They share the cores, and a forked process whose parent has used OpenMP would wait forever for its threads.
    """
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def _build(keywords: dict[str, Any]) -> DistillationRun:
    settings = dict(keywords)
    objects: dict[str, Any] = {}
    for name in ("dataset", "teacher", "student"):
        if isinstance(settings.get(name), DataSource | nn.Module) or callable(settings.get(name)):
            objects[name] = settings.pop(name)
    return build_run(RunConfig.from_keywords(settings), **objects)


class KDEnv(gym.Env[np.ndarray, np.ndarray]):
    """A KD run as an ordinary environment: one batch is one observation, and the batch reward its reward.

    Observation ``Box(N, d)``: the state of the batch's instances. Action ``Box(N)``: their temperatures. An episode is
    a run; its end is ``terminated``, and so is a divergence, with ``info["diverged"]`` true.

    Args:
        render_mode: ``"rgb_array"`` for a picture of the batch's temperatures against its difficulty.
        run: a run that is built already, in place of the settings.
        settings: fields of :class:`~rlkd_env.config.RunConfig`, see :class:`RunStepper`.

    Raises:
        UsageError: if a setting is unknown or invalid.

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
        self.action_space = spaces.Box(action.low[0], action.high[0], (count,), dtype=np.float32)

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
        """Update the student with the temperatures ``(N,)``."""
        transition = self._stepper.step(action)
        terminated = transition.finished or transition.diverged
        info = {"diverged": transition.diverged} if terminated else {}
        return transition.observation, transition.reward, terminated, False, info

    def render(self) -> np.ndarray | None:
        """Return the picture ``(height, width, 3)``, or None without a render mode."""
        return self._stepper.render() if self.render_mode else None


class KDVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A KD run as a vector environment: slot i is instance i of the batch, and every slot earns the batch reward.

    Observation ``Box(N, d)``, action ``Box(N, 1)``, reward ``(N,)``. All slots end together; the step after the end
    starts the next run (next-step autoreset) and ignores its action.

    Args:
        num_envs: number of slots, which is the batch size N.
        render_mode: ``"rgb_array"`` for a picture of the batch's temperatures against its difficulty.
        run: a run that is built already, in place of the settings.
        settings: fields of :class:`~rlkd_env.config.RunConfig`, see :class:`RunStepper`.

    Raises:
        UsageError: if a setting is unknown or invalid, or ``batch_size`` is given and differs from ``num_envs``.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, envs.action_space.shape
        ((64, 4), (64, 1))
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int | None = None,
        *,
        render_mode: str | None = None,
        run: DistillationRun | None = None,
        **settings: Any,
    ) -> None:
        batch_size = settings.get("batch_size", run.batch_size if run is not None else None)
        if num_envs is None:
            num_envs = batch_size if batch_size is not None else RunConfig.batch_size
        if batch_size is not None and batch_size != num_envs:
            raise UsageError(f"a slot is an instance: num_envs={num_envs} must equal batch_size={batch_size}")
        if run is None:
            settings["batch_size"] = num_envs
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._stepper = RunStepper(settings, run, render_mode)
        self.single_observation_space = self._stepper.single_observation_space
        self.single_action_space = self._stepper.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._reset_next = True

    @property
    def run(self) -> DistillationRun:
        """The run behind the slots."""
        return self._stepper.run

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a fresh student; the run's seed is ``seed``, or drawn from the environment's generator."""
        super().reset(seed=seed, options=options)
        run_seed = seed if seed is not None else int(self.np_random.integers(_MAX_SEED))
        self._reset_next = False
        return self._stepper.reset(run_seed), {}

    def observe(self) -> np.ndarray:
        """Return the current observation ``(N, d)`` without stepping, as after a restored or advanced run."""
        self._reset_next = False
        return self._stepper.observe()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Update the student with the temperatures ``(N, 1)``."""
        never = np.zeros(self.num_envs, dtype=bool)
        if self._reset_next:
            observation, info = self.reset()
            return observation, np.zeros(self.num_envs, dtype=np.float32), never, never.copy(), info
        if np.shape(actions) != (self.num_envs, 1):
            raise ValueError(f"expected actions of shape {(self.num_envs, 1)}, got {np.shape(actions)}")
        transition = self._stepper.step(np.asarray(actions)[:, 0])
        terminated = transition.finished or transition.diverged
        self._reset_next = terminated
        reward = np.full(self.num_envs, transition.reward, dtype=np.float32)
        info = {}
        if terminated:
            info = {"diverged": np.full(self.num_envs, transition.diverged), "_diverged": ~never}
        return transition.observation, reward, np.full(self.num_envs, terminated), never, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return one picture ``(height, width, 3)`` of the whole batch, or None without a render mode."""
        return (self._stepper.render(),) if self.render_mode else None
