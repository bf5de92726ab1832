"""The progress bar of a run."""

from __future__ import annotations

import torch
from tqdm import tqdm

from agents.recording.selection import StudentSelection
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun


class ProgressBar(RunHook):
    """Shows the update, and once an epoch the loss, the validation accuracy and the mean temperature.

    Args:
        total: number of updates of the run.
        start: updates that were made before.
        selection: whose validation accuracy is shown; must be called before this hook.
        enabled: whether anything is shown.
    """

    def __init__(self, total: int, start: int, selection: StudentSelection, enabled: bool) -> None:
        self._selection = selection
        self._bar = tqdm(total=total, initial=start, unit="update", desc="distill", disable=not enabled)
        self._last: StepResult | None = None

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        """Count one update."""
        self._last = result
        self._bar.update()

    def on_epoch_end(self, run: DistillationRun) -> None:  # noqa: ARG002
        """Show the epoch's figures."""
        if self._bar.disable or self._last is None:
            return
        figures = torch.stack([self._last.metrics["loss"], self._last.temperature.student.mean()]).tolist()
        self._bar.set_postfix(
            loss=f"{figures[0]:.3f}", val=f"{self._selection.last_accuracy:.1%}", T=f"{figures[1]:.2f}", refresh=False
        )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
