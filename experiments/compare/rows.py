"""One line for every run of a comparison, and the file of them."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from experiments.compare.plan import PlannedRun
from experiments.compare.work import Outcome
from experiments.session.provenance import ACCURACY, metric_of
from rlkd_env.utils.files import write_atomically

COMPARISON_FILE, CSV_FILE = "comparison.json", "comparison.csv"
"""In a comparison's folder."""
COMPARISON_VERSION = 1
"""Of the form of the former."""
LAST, CHOSEN = "last", "chosen"
"""Which student is meant: that of the last epoch, or the one with the best validation accuracy."""
STUDENTS = (LAST, CHOSEN)


@dataclass(frozen=True)
class Row:
    """A run's figures.

    Attributes:
        arm: name.
        task: name.
        seed: of the run.
        last_test_accuracy: of the last epoch's student; None if the run failed.
        chosen_test_accuracy: of the student with the best validation accuracy; likewise.
        chosen_epoch: its epoch, from 1.
        seconds: of the whole run on the clock, without imports and data.
        cpu_seconds: of its process, likewise, which other processes do not disturb; None on a GPU.
        agent_share: share of them in which the agent learned.
        mean_temperature: over all updates and instances; None where the method uses none.
        diverged: whether the run ended because loss or logits were not finite; its students are the last good ones,
            and where there is none its accuracies count as 0.
        config_hash: of the run's settings, the seed among them.
        error: why the run failed; empty if it did not.
        metric: what the accuracies are: accuracy, or AP of detectors.
    """

    arm: str
    task: str
    seed: int
    last_test_accuracy: float | None = None
    chosen_test_accuracy: float | None = None
    chosen_epoch: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    agent_share: float | None = None
    mean_temperature: float | None = None
    diverged: bool = False
    config_hash: str = ""
    error: str = ""
    metric: str = ACCURACY

    def accuracy(self, student: str) -> float | None:
        """Return the test accuracy of the student ``"last"`` or ``"chosen"``."""
        return self.last_test_accuracy if student == LAST else self.chosen_test_accuracy

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def row_of(outcome: Outcome) -> Row:
    """Return the line of a run that is over."""
    run, summary = outcome.run, outcome.summary
    if summary is None:
        return _failed(run, outcome.error or "failed")
    seconds = summary["seconds"]
    return Row(
        arm=run.arm,
        task=run.task,
        seed=run.seed,
        last_test_accuracy=_accuracy(summary, "student_last_test_accuracy"),
        chosen_test_accuracy=_accuracy(summary, "student_test_accuracy"),
        chosen_epoch=summary["student_epoch"],
        seconds=seconds,
        cpu_seconds=summary["cpu_seconds"] if summary["device"] == "cpu" else None,
        agent_share=summary["agent_seconds"] / seconds if seconds else 0.0,
        mean_temperature=summary["mean_temperature"],
        diverged=summary["diverged"],
        config_hash=run.hash,
        metric=metric_of(summary),
    )


def write_csv(rows: list[Row], path: Path) -> None:
    """Write lines as CSV, in the given order."""
    content = io.StringIO()
    writer = csv.DictWriter(content, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_dict() for row in rows)
    write_atomically(path, content.getvalue().encode())


def _accuracy(summary: dict[str, Any], name: str) -> float:
    accuracy = summary[name]
    return 0.0 if accuracy is None else accuracy


def _failed(run: PlannedRun, error: str) -> Row:
    return Row(run.arm, run.task, run.seed, config_hash=run.hash, error=error)
