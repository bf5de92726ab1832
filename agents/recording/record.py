"""All that is recorded of a run, in one object."""

from __future__ import annotations

import math
from typing import Any

import torch

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.recording.trace import InstanceTrace
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun


class RunProgress(RunHook):
    """Knows how far a run has come.

    Attributes:
        steps: number of updates so far.
        diverged: whether the run has diverged; no dimensions.
        temperature_sum: the student's mean temperatures, summed over all updates; no dimensions.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.diverged = torch.tensor(False)
        self.temperature_sum = torch.tensor(0.0, dtype=torch.float64)

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        """Follow one update."""
        self.steps = run.step_count
        self.diverged = result.diverged
        self.temperature_sum = self.temperature_sum.to(run.device) + result.temperature.student.mean()


class RunRecord:
    """A run's progress, the students that are kept of it, its history, and a sample of its instances."""

    def __init__(self, timer: PartTimer) -> None:
        self.timer = timer
        self.progress = RunProgress()
        self.selection = StudentSelection(timer)
        self.history = RunHistory(self.selection, timer)
        self.trace = InstanceTrace()

    @property
    def hooks(self) -> list[RunHook]:
        """What watches a single run, in the order in which it must be called."""
        return [self.progress, self.selection, self.history, self.trace]

    @property
    def steps(self) -> int:
        """The number of updates that were made, also if an agent's environment has gone on to the next run."""
        return self.progress.steps

    @property
    def diverged(self) -> bool:
        """Whether the run ended because loss or logits were no longer finite."""
        return bool(self.progress.diverged)

    @property
    def mean_temperature(self) -> float | None:
        """The student's temperature, averaged over all updates and instances; None if no finite one is known."""
        mean = float(self.progress.temperature_sum) / self.steps if self.steps else math.nan
        return mean if math.isfinite(mean) else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that was recorded but the number of updates, independent of this object from now on."""
        return {
            "selection": self.selection.state_dict(),
            "history": self.history.state_dict(),
            "trace": self.trace.state_dict(),
            "temperature_sum": self.progress.temperature_sum.clone(),
        }

    def load_record(self, state: dict[str, Any], steps: int, device: torch.device) -> None:
        """Continue from :meth:`state_dict` of a run that had made so many updates, on a device."""
        self.selection.load_state_dict(state["selection"])
        self.history.load_state_dict(state["history"], device)
        self.trace.load_state_dict(state["trace"])
        self.progress.steps, self.progress.temperature_sum = steps, state["temperature_sum"]
