"""Between the environments and the runs: NumPy in, NumPy out, one copy from the device in each step."""

from __future__ import annotations

import multiprocessing
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from rlkd_env.data import DataSource
from rlkd_env.envs.rendering import TemperaturePlot
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.parallel import RunMode, check_mode, create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.progress import TeacherBar


class Transition(NamedTuple):
    """What the environments hand to the host after an update of K runs, 1 or more.

    It holds the observation ``(K·B, d)``, the batches' rewards ``(K,)`` and which runs ``(K,)`` have diverged so far.
    """

    observation: np.ndarray
    reward: np.ndarray
    finished: bool
    diverged: np.ndarray

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended: the schedule is over, or no run is left."""
        return self.finished or bool(self.diverged.all())


class RunStepper:
    """What :class:`~rlkd_env.envs.kd_env.KDEnv` and :class:`~rlkd_env.envs.vector_env.KDVectorEnv` share.

    Args:
        keywords: fields of :class:`~rlkd_env.runs.config.RunConfig`; besides its names, ``dataset`` may be a
            :class:`~rlkd_env.data.DataSource`, ``teacher`` a network and ``student`` a function that creates one.
        run: a run that is built already, in place of the keywords; the template, if there are K runs.
    """

    def __init__(
        self,
        keywords: dict[str, Any],
        run: DistillationRun | None,
        render_mode: str | None,
        num_runs: int = 1,
        run_mode: RunMode = "auto",
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"unknown render_mode {render_mode!r}. Valid: rgb_array")
        if run is not None and keywords:
            raise UsageError(f"a run that is built already takes no settings, got {sorted(keywords)}")
        check_mode(run_mode)
        _use_one_thread_in_workers()
        self.run = run if run is not None else _build(keywords)
        self.runs = create_parallel_runs(self.run, num_runs, run_mode) if num_runs != 1 else None
        self._source = self.run if self.runs is None else self.runs
        self.num_instances = num_runs * self.run.batch_size
        self._plot: TemperaturePlot | None = None
        self._last_result: StepResult | None = None

    @property
    def single_observation_space(self) -> spaces.Box:
        """State of one instance, ``(d,)``."""
        state = self.run.state
        return spaces.Box(state.low.cpu().numpy(), state.high.cpu().numpy(), dtype=np.float32)

    @property
    def single_action_space(self) -> spaces.Box:
        """Temperature of one instance, ``(1,)``, or the teacher's and the student's, ``(2,)``."""
        chosen = self.run.temperature_range
        return spaces.Box(np.float32(chosen.minimum), np.float32(chosen.maximum), (self._width,), dtype=np.float32)

    @property
    def _width(self) -> int:
        """Numbers that are chosen for an instance."""
        return 1 if self.run.temperatures == "shared" else 2

    @property
    def outputs(self) -> InstanceOutputs | None:
        """The outputs of the K·B instances that wait for their temperatures; None before the first reset."""
        return getattr(self._source, "outputs", None)

    def reset(self, seed: int) -> np.ndarray:
        """Start runs with seeds from this one on, and return the first observation ``(K·B, d)``."""
        self._last_result = None
        if self.runs is not None:
            state = self.runs.reset(range(seed, seed + self.runs.num_runs))
        else:
            state = self.run.reset(seed)
        return state.cpu().numpy().copy()

    def observe(self) -> np.ndarray:
        """Return the current observation ``(K·B, d)`` without stepping."""
        state = self.run.observe() if self.runs is None else self.run.state(self.runs.outputs)
        return state.cpu().numpy().copy()

    def step(self, action: np.ndarray | Temperature) -> Transition:
        """Update the students with temperatures ``(K·B, 1)`` or ``(K·B, 2)``, which are clipped, or a policy's own."""
        temperature = action if isinstance(action, Temperature) else self._read(action)
        result = self._last_result = self._source.step(temperature)
        rewards, diverged = result.reward.reshape(-1), result.diverged.reshape(-1)
        packed = torch.cat([result.state.flatten(), rewards, diverged.to(rewards.dtype)]).cpu().numpy()
        observation, rewards_and_diverged = np.split(packed, [result.state.numel()])
        reward, has_diverged = np.split(rewards_and_diverged, 2)
        return Transition(
            observation.reshape(result.state.shape).copy(), reward, result.finished, has_diverged.astype(bool)
        )

    def _read(self, action: np.ndarray) -> Temperature:
        values, expected = np.asarray(action, dtype=np.float32), (self.num_instances, self._width)
        if values.shape != expected:
            raise ValueError(f"expected temperatures of shape {expected}, got an action of shape {values.shape}")
        if np.isnan(values).any():
            raise ValueError("a temperature is not a number")
        chosen = self.run.temperature_range
        clipped = torch.from_numpy(values.clip(chosen.minimum, chosen.maximum)).to(self.run.device)
        return Temperature.of_columns(clipped)

    def render(self) -> np.ndarray:
        """Draw the last batch's temperatures against its difficulty as ``(height, width, 3)`` uint8."""
        if not hasattr(self._source, "outputs"):
            raise RuntimeError("there is nothing to render: call reset()")
        if self._plot is None:
            self._plot = TemperaturePlot(
                self.run.temperature_range,
                horizontal="difficulty (1 − student's p of the true class)",
                colour="teacher's p of the true class",
            )
        outputs = self._last_result.outputs if self._last_result else self._source.outputs
        temperature = self._last_result.temperature.student if self._last_result else torch.empty(0)
        count = len(temperature)
        return self._plot.draw(
            horizontal=1.0 - outputs.true_class(outputs.student_probabilities)[:count].cpu().numpy(),
            temperature=temperature.cpu().numpy(),
            colour=outputs.true_class(outputs.teacher_probabilities)[:count].cpu().numpy(),
            title=f"update {self._source.step_count} of {self.run.total_steps}",
        )


def _use_one_thread_in_workers() -> None:
    """Keep torch to one thread in the worker processes of an ``AsyncVectorEnv``.

    They share the cores, and a forked process whose parent has used OpenMP would wait for its threads forever.
    """
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def _build(keywords: dict[str, Any]) -> DistillationRun:
    settings = dict(keywords)
    objects: dict[str, Any] = {}
    for name in ("dataset", "teacher", "student"):
        if isinstance(settings.get(name), DataSource | nn.Module) or callable(settings.get(name)):
            objects[name] = settings.pop(name)
    bar = TeacherBar()
    try:
        return build_run(RunConfig.from_keywords(settings), **objects, on_teacher_epoch=bar)
    finally:
        bar.close()
