"""Between the environments and the runs: NumPy in, NumPy out, one copy from the device in each step."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlkd_env.data import DataSource
from rlkd_env.envs.rendering import TemperaturePlot
from rlkd_env.envs.requests import check_keywords
from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.parallel import RunMode, check_mode, create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.progress import TeacherBar
from rlkd_env.utils.choices import ActionKind
from rlkd_env.utils.options import renamed


class Transition(NamedTuple):
    """What the environments hand to the host after an update of K runs, 1 or more.

    It holds the observation ``(K·B, d)``, the batches' rewards ``(K,)``, which runs ``(K,)`` have diverged so far, and
    figures ``(K,)`` by name: those of :attr:`~rlkd_env.runs.hooks.StepResult.metrics`, and the mean ``temperature`` of
    the batch, or with separate ones also the ``teacher_temperature``. A figure that is not finite is NaN or infinite.
    """

    observation: np.ndarray
    reward: np.ndarray
    finished: bool
    diverged: np.ndarray
    figures: dict[str, np.ndarray]

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended: the schedule is over, or no run is left."""
        return self.finished or bool(self.diverged.all())


class RunStepper:
    """What :class:`~rlkd_env.envs.kd_env.KDEnv` and :class:`~rlkd_env.envs.vector_env.KDVectorEnv` share.

    Args:
        environment: the environment's class, whose own keywords messages name too.
        keywords: fields of :class:`~rlkd_env.runs.config.RunConfig`; besides its names, ``dataset`` may be a
            :class:`~rlkd_env.data.DataSource`, ``teacher`` a network and ``student`` a function that creates one.
        run: a run that is built already, in place of the keywords; the template, if there are K runs.
        action: what actions are: ``"normalized"`` ones in ``[-1, 1]``, on a log scale, or each a ``"temperature"``.

    Attributes:
        action_map: the map from normalised actions to temperatures; None where actions are temperatures.
    """

    @usual_torch_settings()
    def __init__(
        self,
        environment: type,
        keywords: dict[str, Any],
        run: DistillationRun | None,
        action: ActionKind,
        render_mode: str | None,
        num_runs: int = 1,
        run_mode: RunMode = "auto",
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"unknown render_mode {render_mode!r}. Valid: rgb_array")
        if action not in ("normalized", "temperature"):
            raise unknown_name("action", action, ("normalized", "temperature"))
        if run is not None and keywords:
            raise UsageError(f"a run that is built already takes no settings, got {sorted(keywords)}")
        check_mode(run_mode)
        _use_one_thread_in_workers()
        self.run = run if run is not None else _build(environment, keywords)
        self.runs = create_parallel_runs(self.run, num_runs, run_mode) if num_runs != 1 else None
        self._source = self.run if self.runs is None else self.runs
        self._num_runs = num_runs
        self.num_instances = num_runs * self.run.batch_size
        self.action_map = ActionMap(self.run.temperature_range) if action == "normalized" else None
        self._plot: TemperaturePlot | None = None
        self._last_result: StepResult | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies of the environment need; they draw a picture of their own, from their next step on."""
        return {**self.__dict__, "_plot": None, "_last_result": None}

    @property
    def single_observation_space(self) -> spaces.Box:
        """State of one instance, ``(d,)``."""
        state = self.run.state
        return spaces.Box(state.low.cpu().numpy(), state.high.cpu().numpy(), dtype=np.float32)

    @property
    def single_action_space(self) -> spaces.Box:
        """What is chosen for one instance, ``(1,)``, or for teacher and student apart, ``(2,)``."""
        chosen = self.run.temperature_range
        low, high = (chosen.minimum, chosen.maximum) if self.action_map is None else (-1.0, 1.0)
        return spaces.Box(np.float32(low), np.float32(high), (self._width,), dtype=np.float32)

    @property
    def _width(self) -> int:
        """Numbers that are chosen for an instance."""
        return 1 if self.run.temperatures == "shared" else 2

    @property
    def action_names(self) -> str:
        """What messages call actions."""
        return "temperatures" if self.action_map is None else "actions"

    @property
    def outputs(self) -> InstanceOutputs | None:
        """The outputs of the K·B instances that wait for their temperatures; None before the first reset."""
        return getattr(self._source, "outputs", None)

    @property
    def step_count(self) -> int:
        """Number of updates of every run so far."""
        return self._source.step_count

    @usual_torch_settings()
    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Start runs with these K seeds, and return the first observation ``(K·B, d)``."""
        self._last_result = None
        state = self.run.reset(*seeds) if self.runs is None else self.runs.reset(seeds)
        return state.cpu().numpy().copy()

    @usual_torch_settings()
    def observe(self) -> np.ndarray:
        """Return the current observation ``(K·B, d)`` without stepping."""
        state = self.run.observe() if self.runs is None else self.run.state(self.runs.outputs)
        return state.cpu().numpy().copy()

    @usual_torch_settings()
    def step(self, action: np.ndarray | Temperature) -> Transition:
        """Update the students with actions ``(K·B, 1)`` or ``(K·B, 2)``, which are clipped, or a policy's temperatures.

        Raises:
            ValueError: if an action has the wrong shape or is not a number.
        """
        temperature = action if isinstance(action, Temperature) else self._read(action)
        result = self._last_result = self._source.step(temperature)
        values = {"reward": result.reward, "diverged": result.diverged, **result.metrics, **self._means(result)}
        rows = torch.stack([value.reshape(-1).to(result.reward.dtype) for value in values.values()])
        packed = torch.cat([result.state.flatten(), rows.flatten()]).cpu().numpy()
        observation, figures = np.split(packed, [result.state.numel()])
        by_name = dict(zip(values, figures.reshape(rows.shape), strict=True))
        reward, has_diverged = by_name.pop("reward"), by_name.pop("diverged").astype(bool)
        return Transition(
            observation.reshape(result.state.shape).copy(), reward, result.finished, has_diverged, by_name
        )

    def _means(self, result: StepResult) -> dict[str, Tensor]:
        """Return the runs' mean temperatures ``(K,)``."""
        chosen = result.temperature
        means = {"temperature": chosen.student.reshape(self._num_runs, -1).mean(dim=-1)}
        if not chosen.is_shared:
            means["teacher_temperature"] = chosen.teacher.reshape(self._num_runs, -1).mean(dim=-1)
        return means

    @usual_torch_settings()
    def student_figures(self) -> dict[str, np.ndarray]:
        """Measure the students on the validation images: their accuracy and loss ``(K,)`` by name."""
        found = self._source.evaluate_validation()
        figures = {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
        return {name: value.reshape(-1).cpu().numpy() for name, value in figures.items()}

    def _read(self, action: np.ndarray) -> Temperature:
        values, expected = np.asarray(action, dtype=np.float32), (self.num_instances, self._width)
        if values.shape != expected:
            raise ValueError(f"expected {self.action_names} of shape {expected}, got an action of shape {values.shape}")
        if np.isnan(values).any():
            raise ValueError(f"one of the {self.action_names} is not a number")
        if self.action_map is not None:
            values = self.action_map.to_temperature(values)
        chosen = self.run.temperature_range
        clipped = torch.from_numpy(values.clip(chosen.minimum, chosen.maximum)).to(self.run.device)
        return Temperature.of_columns(clipped)

    @usual_torch_settings()
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


_OBJECTS = ("dataset", "teacher", "student")
"""Settings that may be objects in place of names."""
_COMMAND_OR_OPTION = re.compile(r"`[^`]*`|--([a-z][a-z-]*)")


def _build(environment: type, keywords: dict[str, Any]) -> DistillationRun:
    check_keywords(environment, renamed(keywords), RunConfig.option_names())
    settings = dict(keywords)
    objects: dict[str, Any] = {}
    for name in _OBJECTS:
        if isinstance(settings.get(name), DataSource | nn.Module) or callable(settings.get(name)):
            objects[name] = settings.pop(name)
    bar = TeacherBar()
    try:
        return build_run(RunConfig.from_keywords(settings), **objects, on_teacher_epoch=bar)
    except UsageError as error:
        raise type(error)(_COMMAND_OR_OPTION.sub(_as_keyword, str(error))) from None
    finally:
        bar.close()


def _as_keyword(option: re.Match[str]) -> str:
    """Return an option such as ``--data-path`` as the keyword that it is here, and a whole command as it is."""
    return option[0] if option[1] is None else option[1].replace("-", "_")
