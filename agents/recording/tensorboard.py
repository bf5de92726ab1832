"""TensorBoard's curves of a run, with the agent's own log among them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import KVWriter, Logger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import scalar

from agents.recording.history import RunHistory
from agents.recording.record import RunRecord
from agents.recording.timing import PartTimer
from rlkd_env.envs.rendering import TemperaturePlot
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Explorer

_PICTURES = 12
"""The greatest number of pictures in a run."""
_HISTOGRAMS = 40
"""The greatest number of histograms of temperatures in a run; the quantiles are drawn for every epoch."""
_SHARE = 0.1
"""Share of a run's time that its curves may take; pictures, which take most of it, are left out beyond it."""
_FIRST_PICTURE = 0.5
"""Seconds that the first picture takes, before one has been measured."""
_TOGETHER_SECONDS = 1.0
_QUEUE = 1000
"""Events that can wait for being written."""
_LOG2_BINS = [number / 8 for number in range(-48, 65)]
"""Eight bins for every doubling of the temperature, from 1/64 to 256: the same in all epochs and runs. Of temperatures
themselves a histogram would show little, because they spread over orders of magnitude."""


class TensorBoardCurves(RunHook):
    """Writes a run's curves once an epoch, at the KD step that ends it, and a few pictures if there is time for them.

    Tensors of the epoch stay on the device until then. The hook ``history`` must be called before this one; ``extra``
    returns further scalars by tag at the end of every epoch. The time of this hook counts as the part ``logging``.
    """

    def __init__(
        self, writer: SummaryWriter, history: RunHistory, timer: PartTimer, extra: Callable[[], dict[str, float]] = dict
    ) -> None:
        self._extra = extra
        self._writer = writer
        self._history = history
        self._timer = timer
        self._plot: TemperaturePlot | None = None
        self._picture_seconds = _FIRST_PICTURE
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        """Remember one update."""
        values = self._values
        for name, value in result.metrics.items():
            group = "sampling" if name == "mixed_share" else "student"
            values[f"{group}/{name}"].append(value)
        outputs = result.outputs
        values["temperature"].append(result.temperature.student)
        values["confidence"].append(outputs.true_class(outputs.teacher_probabilities))
        values["student_confidence"].append(outputs.true_class(outputs.student_probabilities))

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Write the epoch."""
        with self._timer.part("logging"):
            self._write_epoch(run)
            self._values.clear()

    def _write_epoch(self, run: DistillationRun) -> None:
        step, values = run.step_count, self._values
        scalars = {name: float(torch.stack(values[name]).mean()) for name in values if "/" in name}
        scalars |= self._history.scalars()
        scalars["student/learning_rate"] = run.learning_rate
        temperature = torch.cat(values["temperature"]).float()
        scalars |= {f"time/{name}_seconds": seconds for name, seconds in self._timer.seconds.items()} | self._extra()
        add_scalars(self._writer, scalars, step)
        if run.finished or run.epoch % math.ceil(run.recipe.epochs / _HISTOGRAMS) == 0:
            logarithms = temperature.log2().clamp(_LOG2_BINS[0], _LOG2_BINS[-1])
            self._writer.add_histogram("temperature/log2_histogram", logarithms, step, bins=_LOG2_BINS)
        is_due = run.finished or run.epoch % math.ceil(run.recipe.epochs / _PICTURES) == 0
        if is_due and self._has_time():
            started = time.perf_counter()
            picture = self._draw(run, temperature)
            self._writer.add_image("temperature/against_teacher_confidence", picture, step, dataformats="HWC")
            self._picture_seconds = time.perf_counter() - started
        if isinstance(run.sampler, Explorer):
            scores = run.sampler.scores
            self._writer.add_histogram("sampling/score", scores[scores.isfinite()], step)

    def _has_time(self) -> bool:
        """Return whether the curves stay within their share of the time with one more picture."""
        seconds = self._timer.seconds
        return seconds["logging"] + self._picture_seconds <= _SHARE * sum(seconds.values())

    def _draw(self, run: DistillationRun, temperature: Tensor) -> Any:
        if self._plot is None:
            axes = {"horizontal": "teacher's p of the true class", "colour": "student's p of the true class"}
            self._plot = TemperaturePlot(run.temperature_range, **axes)
        return self._plot.draw(
            horizontal=torch.cat(self._values["confidence"]).cpu().numpy(),
            temperature=temperature.cpu().numpy(),
            colour=torch.cat(self._values["student_confidence"]).cpu().numpy(),
            title=f"epoch {run.epoch} of {run.recipe.epochs}",
        )


class LockstepCurves(RunHook[ParallelRuns]):
    """Writes the curves of K runs in lock-step, each with a writer of its own, once an epoch.

    The hook that fills the ``records`` must be called before this one, whose time counts as the part ``logging``.
    """

    def __init__(self, writers: Sequence[SummaryWriter], records: Sequence[RunRecord], timer: PartTimer) -> None:
        self._writers, self._records, self._timer = writers, records, timer

    def on_epoch_end(self, runs: ParallelRuns) -> None:
        """Write the epoch of every run that has not diverged before."""
        with self._timer.part("logging"):
            for writer, record in zip(self._writers, self._records, strict=True):
                if record.steps == runs.step_count:
                    add_scalars(writer, record.history.scalars(), runs.step_count)


def open_curves(folder: Path, purge_step: int | None = None) -> SummaryWriter:
    """Return TensorBoard's writer for a folder; what is written from ``purge_step`` on replaces what is there."""
    writer = SummaryWriter(str(folder), purge_step=purge_step, max_queue=_QUEUE)
    file: Any = writer.file_writer  # which torch's types take for None
    file.event_writer = _EventsTogether(file.event_writer)
    return writer


class _EventsTogether:
    """Hands events to the thread that writes them a second's worth at a time.

    Waking that thread for every event takes a small run longer than all else that is done for its curves.
    """

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer = writer
        self._waiting: list[Any] = []
        self._since = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def add_event(self, event: Any) -> None:
        """Keep an event for up to a second, until the next one comes or all are flushed."""
        self._waiting.append(event)
        if time.monotonic() - self._since >= _TOGETHER_SECONDS:
            self._hand_over()

    def flush(self) -> None:
        """Write all events."""
        self._hand_over()
        self._writer.flush()

    def close(self) -> None:
        """Write all events and close the file."""
        self._hand_over()
        self._writer.close()

    def _hand_over(self) -> None:
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        for event in waiting:
            self._writer.add_event(event)


def add_scalars(writer: SummaryWriter, scalars: Mapping[str, float], step: int) -> None:
    """Write scalars of one step as one event, which takes a fraction of the time of one event each."""
    values = [value for name, number in scalars.items() for value in scalar(name, number).value]
    file: Any = writer.file_writer  # which torch's types take for None
    file.add_summary(Summary(value=values), step)


class _AgentWriter(KVWriter):
    """Writes what the agent records to the run's event file, under its own names, at KD steps instead of slot-steps."""

    def __init__(self, writer: SummaryWriter, run: DistillationRun | ParallelRuns) -> None:
        self._writer = writer
        self._run = run

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:  # noqa: ARG002
        for key, value in key_values.items():
            is_number = isinstance(value, int | float) or hasattr(value, "dtype")
            if key.startswith(("train/", "time/")) and is_number and "tensorboard" not in (key_excluded[key] or ()):
                self._writer.add_scalar(key, value, self._run.step_count)

    def close(self) -> None:
        """Leave the event file open, because it is the run's."""


def agent_logger(writer: SummaryWriter, run: DistillationRun | ParallelRuns) -> Logger:
    """Return a logger for ``agent.set_logger`` that draws the agent's losses beside the run's curves."""
    return Logger(folder=None, output_formats=[_AgentWriter(writer, run)])
