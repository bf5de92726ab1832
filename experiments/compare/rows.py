"""The rows of a comparison's CSV file, one for every run."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from experiments.compare.work import Outcome
from experiments.session.provenance import ACCURACY, metric_of
from rlkd_env.utils.files import write_atomically

COMPARISON_FILE, COMPARISON_VERSION = "comparison.json", 1
CSV_FILE = "comparison.csv"
LAST, CHOSEN = "last", "chosen"  # the student of the last epoch and the one with the best validation accuracy
STUDENTS = (LAST, CHOSEN)


@dataclass(frozen=True)
class Row:
    """The metrics of a run.

    Accuracies are None if the run failed, CPU seconds on a GPU, all times if it was made together with others, and the
    mean temperature if the method uses none. A run that diverged has its last good students, and accuracies of 0 if
    there are none.
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


def row_of(outcome: Outcome) -> Row:
    """Return the row of a run that is over."""
    run, summary = outcome.run, outcome.summary
    if summary is None:
        return Row(run.arm, run.task, run.seed, config_hash=run.hash, error=outcome.error or "failed")
    alone = "together" not in summary
    seconds = summary["seconds"]
    return Row(
        arm=run.arm,
        task=run.task,
        seed=run.seed,
        last_test_accuracy=summary["student_last_test_accuracy"] or 0.0,
        chosen_test_accuracy=summary.get("student_best_test_accuracy", summary["student_test_accuracy"]) or 0.0,
        chosen_epoch=summary.get("student_best_epoch", summary["student_epoch"]),
        seconds=seconds if alone else None,
        cpu_seconds=summary["cpu_seconds"] if alone and summary["device"] == "cpu" else None,
        agent_share=summary["agent_seconds"] / seconds if seconds else 0.0,
        mean_temperature=summary["mean_temperature"],
        diverged=summary["diverged"],
        config_hash=run.hash,
        metric=metric_of(summary),
    )


def write_csv(rows: list[Row], path: Path) -> None:
    """Write rows as CSV in the given order."""
    content = io.StringIO()
    writer = csv.DictWriter(content, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(path, content.getvalue().encode())
