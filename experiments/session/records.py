"""What is recorded of a run: progress, students, history, trace and curves; and how that gets onto the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.recording.trace import InstanceTrace
from experiments.config import OutputConfig
from experiments.session.folder import HISTORY_FILE, TENSORBOARD_FOLDER, TRACE_FILE
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.files import write_json, write_tensors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Records:
    """Watches a run, and keeps what is to be known of it."""

    def __init__(self, run: DistillationRun, folder: Path | None) -> None:
        self._run, self._folder = run, folder
        self.timer = PartTimer()
        self.selection = StudentSelection(self.timer)
        self.history = RunHistory(self.selection, self.timer)
        self.trace = InstanceTrace()
        self.writer: SummaryWriter | None = None
        self._tracker = _Tracker()
        self._cpu_seconds = 0.0
        self._cpu_clock: float | None = None

    @property
    def steps(self) -> int:
        """The number of updates that were made, also if an agent's environment has gone on to the next run."""
        return self._tracker.steps

    @property
    def diverged(self) -> bool:
        """Whether the run ended because loss or logits were no longer finite."""
        return bool(self._tracker.diverged)

    @property
    def mean_temperature(self) -> float | None:
        """The student's temperature, averaged over all updates and instances; None if no temperature had an effect."""
        has_any = self.steps > 0 and self._run.method.uses_temperature
        return float(self._tracker.temperature_sum) / self.steps if has_any else None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process since :meth:`start_clock`, of all threads together."""
        now = 0.0 if self._cpu_clock is None else time.process_time() - self._cpu_clock
        return self._cpu_seconds + now

    def start_clock(self) -> None:
        """Start counting CPU seconds; they are counted to the end of :meth:`watching`."""
        self._cpu_clock = time.process_time()

    @contextmanager
    def watching(
        self,
        options: OutputConfig,
        resumed: bool,
        scalars: Callable[[], dict[str, float]],
        further: Sequence[RunHook] = (),
    ) -> Iterator[None]:
        """Watch the run within the ``with`` block.

        The curves have the further figures that ``scalars`` returns; what they show beyond a checkpoint is dropped when
        a run is resumed.
        """
        bar = _ProgressBar(self._run.total_steps, self.steps, self.selection, options.progress)
        curves = self._open_curves(resumed, scalars) if options.tensorboard else []
        hooks: list[RunHook] = [self._tracker, self.selection, self.history, self.trace, *curves, bar, *further]
        for hook in hooks:
            self._run.add_hook(hook)
        try:
            yield
        finally:
            self._cpu_seconds, self._cpu_clock = self.cpu_seconds, None
            for hook in hooks:
                self._run.remove_hook(hook)
            bar.close()
            if self.writer is not None:
                self.writer.close()
                self.writer = None

    def _open_curves(self, resumed: bool, scalars: Callable[[], dict[str, float]]) -> list[RunHook]:
        if self._folder is None:
            return []
        from torch.utils.tensorboard import SummaryWriter  # takes long to import

        from agents.recording.tensorboard import TensorBoardCurves

        purge_step = self.steps + 1 if resumed else None
        self.writer = SummaryWriter(str(self._folder / TENSORBOARD_FOLDER), purge_step=purge_step)
        return [TensorBoardCurves(self.writer, self.history, self.timer, scalars)]

    def save(self) -> None:
        """Write history and trace."""
        if self._folder is not None:
            write_json(self._folder / HISTORY_FILE, self.history.content())
            write_tensors(self._folder / TRACE_FILE, self.trace.tensors())

    def state_dict(self) -> dict[str, Any]:
        """Return all that was recorded. What is on the disk is brought up to date, to be there after a kill too."""
        if self.writer is not None:
            self.writer.flush()
        self.save()
        return {
            "selection": self.selection.state_dict(),
            "history": self.history.state_dict(),
            "trace": self.trace.state_dict(),
            "temperature_sum": self._tracker.temperature_sum.clone(),
            "seconds": dict(self.timer.seconds),
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` with the run restored."""
        self.selection.load_state_dict(state["selection"])
        self.history.load_state_dict(state["history"], self._run.device)
        self.trace.load_state_dict(state["trace"])
        self._tracker.steps, self._tracker.temperature_sum = self._run.step_count, state["temperature_sum"]
        self.timer.seconds.update(state["seconds"])
        self._cpu_seconds = state["cpu_seconds"]


class _Tracker(RunHook):
    """Knows how far the run has come."""

    def __init__(self) -> None:
        self.steps = 0
        self.diverged = torch.tensor(False)
        self.temperature_sum = torch.tensor(0.0, dtype=torch.float64)

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        self.steps = run.step_count
        self.diverged = result.diverged
        self.temperature_sum = self.temperature_sum.to(run.device) + result.temperature.student.mean()


class _ProgressBar(RunHook):
    """Shows the update, and once an epoch the loss, the validation accuracy and the mean temperature."""

    def __init__(self, total: int, start: int, selection: StudentSelection, enabled: bool) -> None:
        self._selection = selection
        self._bar = tqdm(total=total, initial=start, unit="update", desc="distill", disable=not enabled)
        self._last: StepResult | None = None

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        self._last = result
        self._bar.update()

    def on_epoch_end(self, run: DistillationRun) -> None:  # noqa: ARG002
        if self._bar.disable or self._last is None:
            return
        loss, temperature = torch.stack([self._last.metrics["loss"], self._last.temperature.student.mean()]).tolist()
        self._bar.set_postfix(
            loss=f"{loss:.3f}", val=f"{self._selection.last_accuracy:.1%}", T=f"{temperature:.2f}", refresh=False
        )

    def close(self) -> None:
        self._bar.close()
