"""Records of several runs in lock-step, each as if it had been made alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.recording.record import RunRecord
from agents.recording.timing import PartTimer
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import ParallelResult, ParallelRuns


class LockstepRecorder(RunHook[ParallelRuns]):
    """Fills the records of K runs in lock-step.

    A step is noted for all runs at once; only at the end of an epoch, and for the sample of instances, each run gets
    what is its own. The record of a run that has diverged ends with the epoch in which it did.

    Attributes:
        steps: number of updates so far.
        diverged: ``(K,)`` whether a run has diverged.
    """

    def __init__(self, records: Sequence[RunRecord], timer: PartTimer) -> None:
        self._records, self._timer = records, timer
        self.steps, self.diverged = 0, torch.zeros(len(records), dtype=torch.bool)
        self._forget_epoch()

    def _forget_epoch(self) -> None:
        self._temperatures: list[Tensor] = []
        self._correct: list[Tensor] = []
        self._rewards: list[Tensor] = []

    def on_step(self, runs: ParallelRuns, result: StepResult) -> None:
        """Note one update of all runs."""
        outputs = result.outputs
        self.steps, self.diverged = runs.step_count, result.diverged
        self._rewards.append(result.reward)
        self._temperatures.append(outputs.by_run(result.temperature.student))
        correct = outputs.student_log_probabilities.argmax(dim=-1) == outputs.labels
        self._correct.append(outputs.by_run(correct))
        if isinstance(result, ParallelResult) and self._records[0].trace.is_noted(runs, runs.step_count):
            for run, record in enumerate(self._records):
                if not record.diverged:
                    record.trace.on_step(runs, result.of_run(run))

    def on_epoch_end(self, runs: ParallelRuns) -> None:
        """Share the epoch out among the records."""
        with self._timer.part("evaluation"):
            evaluation = runs.evaluate_validation()
            figures = torch.stack([evaluation.accuracy, evaluation.loss], dim=1).tolist()
            weights = runs.weights()
        with self._timer.part("logging"):
            epoch = [values.cpu().numpy() for values in self._current().values()]
            diverged = self.diverged.tolist()
            self._forget_epoch()
            for run, record in enumerate(self._records):
                if record.diverged:
                    continue
                accuracy, loss = figures[run]
                if math.isfinite(loss) and not diverged[run]:
                    record.selection.add(runs.epoch, accuracy, loss, weights[run])
                temperature, correct, reward = (values[:, run] for values in epoch)
                record.history.add(runs.epoch, runs.step_count, temperature.flatten(), correct.flatten(), reward)
                progress = record.progress
                progress.steps, progress.diverged = runs.step_count, torch.tensor(diverged[run])
                progress.temperature_sum += temperature.mean(axis=1).sum(dtype=np.float64)

    def _current(self) -> dict[str, Tensor]:
        """Return the values of the current epoch so far: ``(steps, K, B)``, and rewards ``(steps, K)``."""
        values = {"temperature": self._temperatures, "correct": self._correct, "reward": self._rewards}
        return {name: torch.stack(steps) if steps else torch.empty(0) for name, steps in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all records and the values of the current epoch, independent of this object from now on."""
        told = [{**record.state_dict(), "steps": record.steps, "diverged": record.diverged} for record in self._records]
        return {"records": told, "current": self._current()}

    def load_state_dict(self, state: dict[str, Any], runs: ParallelRuns) -> None:
        """Restore :meth:`state_dict` for runs that are restored already."""
        self.steps, self.diverged = runs.step_count, runs.diverged
        for record, told in zip(self._records, state["records"], strict=True):
            record.load_record(told, told["steps"], runs.device)
            record.progress.diverged = torch.tensor(told["diverged"])
        current = {name: list(values.to(runs.device)) for name, values in state["current"].items()}
        self._temperatures, self._correct, self._rewards = current.values()
