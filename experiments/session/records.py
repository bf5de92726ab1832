"""What is recorded of a run: progress, students, history, trace and curves; and how that gets onto the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agents.recording.history import RunHistory
from agents.recording.record import RunRecord
from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.recording.trace import InstanceTrace
from experiments.config import OutputConfig
from experiments.session.folder import HISTORY_FILE, TRACE_FILE
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.progress import progress_bar
from rlkd_env.utils.files import write_json, write_tensors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


_LIVE_SECONDS = 3.0


@dataclass(frozen=True)
class Settings:
    """Settings of a run by their names: all of them, and those that tell runs apart."""

    all: dict[str, Any]
    main: dict[str, Any]


class Records:
    """Watches a run, or several in lock-step, and keeps what is to be known of it."""

    def __init__(self, run: DistillationRun | ParallelRuns, folder: Path | None, patience: int | None = None) -> None:
        self._run, self._folder, self._patience = run, folder, patience
        self.timer = PartTimer()
        self.writer: SummaryWriter | None = None
        self._record = RunRecord(self.timer)
        self._cpu_seconds = 0.0
        self._cpu_clock: float | None = None

    @property
    def shown(self) -> RunRecord:
        """The record of the run, or of the best of several."""
        return self._record

    @property
    def selection(self) -> StudentSelection:
        """The students that are kept."""
        return self.shown.selection

    @property
    def history(self) -> RunHistory:
        """The numbers of every epoch."""
        return self.shown.history

    @property
    def trace(self) -> InstanceTrace:
        """The sample of instances."""
        return self.shown.trace

    @property
    def steps(self) -> int:
        """The number of updates that were made, also if an agent's environment has gone on to the next run."""
        return self._record.steps

    @property
    def diverged(self) -> bool:
        """Whether the run, or every one of several, ended because loss or logits were no longer finite."""
        return self._record.diverged

    @property
    def stopped_early(self) -> bool:
        """Whether no epoch within the patience has brought a better student, so that the run ends before its time."""
        epoch = self.steps // self._run.steps_per_epoch
        unfinished = self.steps < self._run.total_steps
        return unfinished and self._patience is not None and epoch - self._latest_best >= self._patience

    @property
    def _latest_best(self) -> int:
        """The epoch of the best student, or the latest of those of several runs."""
        return self.selection.best_epoch

    @property
    def is_over(self) -> bool:
        """Whether the run ends here, before its schedule does."""
        return self.diverged or self.stopped_early

    @property
    def mean_temperature(self) -> float | None:
        """The student's temperature, averaged over all updates and instances; None if no temperature had an effect."""
        method = self._run.method if isinstance(self._run, DistillationRun) and self.steps else None
        return None if method is not None and not method.uses_temperature else self.shown.mean_temperature

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process since :meth:`start_clock`, of all threads together."""
        now = 0.0 if self._cpu_clock is None else time.process_time() - self._cpu_clock
        return self._cpu_seconds + now

    def start_clock(self) -> None:
        """Start counting CPU seconds, which end with :meth:`watching` or :meth:`stop_clock`."""
        self._cpu_clock = time.process_time()

    def stop_clock(self, runs: int = 1) -> None:
        """Stop counting CPU seconds; if so many runs were made together, an equal share is the run's own."""
        self._cpu_seconds, self._cpu_clock = self.cpu_seconds / runs, None

    def count_by(self, timer: PartTimer) -> None:
        """Take as the run's own the times that a timer counts for each of several runs."""
        self.timer.seconds = timer.seconds

    @contextmanager
    def watching(
        self,
        options: OutputConfig,
        resumed: bool,
        settings: Settings,
        scalars: Callable[[], dict[str, float]],
        further: Sequence[RunHook] = (),
    ) -> Iterator[None]:
        """Watch the run within the ``with`` block.

        The curves come with the settings of the run, and have the further figures that ``scalars`` returns; what they
        show beyond a checkpoint is dropped when a run is resumed.
        """
        bar = _ProgressBar(self._run.total_steps, self.steps, lambda: self.selection.last_accuracy, options.progress)
        curves: list[RunHook] = []
        if options.tensorboard and self._folder is not None:
            purge_step = self.steps + 1 if resumed else None
            curves = self._open_curves(self._folder, purge_step, scalars)
            if not resumed:
                self._write_settings(settings)
        hooks: list[RunHook] = [*self._recorders(), *curves, bar, _LiveHistory(self), *further]
        for hook in hooks:
            self._run.add_hook(hook)
        try:
            yield
        finally:
            self.stop_clock()
            for hook in hooks:
                self._run.remove_hook(hook)
            bar.close()
            self._close_curves()

    def _recorders(self) -> list[RunHook]:
        """Return the hooks that record, in the order in which they must be called."""
        return self._record.hooks

    def _open_curves(
        self, folder: Path, purge_step: int | None, scalars: Callable[[], dict[str, float]]
    ) -> list[RunHook]:
        """Open TensorBoard's files, in which later steps are dropped, and return the hooks that write them."""
        from agents.recording.tensorboard import TensorBoardCurves, open_curves  # takes long to import

        self.writer = open_curves(folder, purge_step)
        return [TensorBoardCurves(self.writer, self.history, self.timer, scalars)]

    def _write_settings(self, settings: Settings) -> None:
        from agents.recording.overview import write_settings

        if self.writer is not None:
            write_settings(self.writer, settings.all, settings.main)

    def _close_curves(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def save_history(self) -> None:
        """Write the history."""
        if self._folder is not None:
            write_json(self._folder / HISTORY_FILE, self.history_content())

    def save(self) -> None:
        """Write history and trace."""
        self.save_history()
        if self._folder is not None:
            write_tensors(self._folder / TRACE_FILE, self.trace.tensors())

    def history_content(self) -> dict[str, Any]:
        """Return the content of ``history.json``."""
        run = self._run.template if isinstance(self._run, ParallelRuns) else self._run
        return {**self.history.content(), "metric": run.task.metric}

    def state_dict(self) -> dict[str, Any]:
        """Return all that was recorded. What is on the disk is brought up to date, to be there after a kill too."""
        self._flush_curves()
        self.save()
        return {**self._recorded(), "seconds": dict(self.timer.seconds), "cpu_seconds": self.cpu_seconds}

    def _flush_curves(self) -> None:
        if self.writer is not None:
            self.writer.flush()

    def _recorded(self) -> dict[str, Any]:
        return self._record.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` with the run restored."""
        self._load_recorded(state)
        self.timer.seconds.update(state["seconds"])
        self._cpu_seconds = state["cpu_seconds"]

    def _load_recorded(self, state: dict[str, Any]) -> None:
        self._record.load_record(state, self._run.step_count, self._run.device)


class _LiveHistory(RunHook):
    """Writes the history every few seconds, for whoever watches the run."""

    def __init__(self, records: Records) -> None:
        self._records, self._last = records, time.monotonic()

    def on_epoch_end(self, run: DistillationRun | ParallelRuns) -> None:  # noqa: ARG002
        now = time.monotonic()
        if now - self._last >= _LIVE_SECONDS:
            self._last = now
            with self._records.timer.part("logging"):
                self._records.save_history()


class _ProgressBar(RunHook):
    """Shows the update, and once an epoch the loss, the validation accuracy and the mean temperature."""

    def __init__(self, total: int, start: int, accuracy: Callable[[], float], enabled: bool) -> None:
        self._accuracy = accuracy
        self._bar = progress_bar("distill", "update", total, enabled, initial=start)
        self._last: StepResult | None = None

    def on_step(self, run: DistillationRun | ParallelRuns, result: StepResult) -> None:  # noqa: ARG002
        self._last = result
        self._bar.update()

    def on_epoch_end(self, run: DistillationRun | ParallelRuns) -> None:  # noqa: ARG002
        if self._bar.disable or self._last is None:
            return
        values = (self._last.metrics["loss"], self._last.temperature.student)
        loss, temperature = torch.stack([value.mean() for value in values]).tolist()
        self._bar.set_postfix(loss=f"{loss:.3f}", val=f"{self._accuracy():.1%}", T=f"{temperature:.2f}", refresh=False)

    def close(self) -> None:
        self._bar.close()
