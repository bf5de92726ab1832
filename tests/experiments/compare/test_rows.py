"""The rows of a comparison's file, and where their numbers come from."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.compare.rows import CHOSEN, LAST, Row, row_of, write_csv

SUMMARY = {
    "student_last_test_accuracy": 0.75,
    "student_test_accuracy": 0.8,
    "student_epoch": 7,
    "seconds": 8.0,
    "cpu_seconds": 6.0,
    "device": "cpu",
    "agent_seconds": 2.0,
    "mean_temperature": 4.0,
    "diverged": False,
}


def outcome(summary: dict[str, Any] | None, error: str | None = None) -> Any:
    run = SimpleNamespace(arm="ppo", task="digits", seed=3, hash="abc")
    return SimpleNamespace(run=run, summary=summary, error=error)


def test_a_row_takes_its_numbers_from_the_summary() -> None:
    row = row_of(outcome(SUMMARY))
    assert row == Row("ppo", "digits", 3, 0.75, 0.8, 7, 8.0, 6.0, 0.25, 4.0, False, "abc")
    assert (row.accuracy(LAST), row.accuracy(CHOSEN), row.metric) == (0.75, 0.8, "accuracy")
    assert row_of(outcome(SUMMARY | {"device": "cuda"})).cpu_seconds is None
    assert row_of(outcome(SUMMARY | {"metric": "AP"})).metric == "AP"


def test_runs_without_a_student_count_as_0_and_failed_ones_not_at_all() -> None:
    diverged = SUMMARY | {"diverged": True, "student_last_test_accuracy": None, "student_test_accuracy": None}
    row = row_of(outcome(diverged))
    assert (row.diverged, row.last_test_accuracy, row.chosen_test_accuracy, row.error) == (True, 0.0, 0.0, "")
    failed = row_of(outcome(None, "out of memory"))
    assert (failed.error, failed.last_test_accuracy, failed.config_hash) == ("out of memory", None, "abc")
    assert row_of(outcome(None)).error == "failed"


def test_rows_are_written_in_their_order_with_empty_cells_for_the_unknown(tmp_path: Path) -> None:
    rows = [row_of(outcome(SUMMARY)), row_of(outcome(None, 'a "quoted", reason'))]
    write_csv(rows, tmp_path / "comparison.csv")
    with open(tmp_path / "comparison.csv", newline="") as file:
        told = list(csv.DictReader(file))
    assert [row["error"] for row in told] == ["", 'a "quoted", reason']
    assert float(told[0]["last_test_accuracy"]) == pytest.approx(0.75)
    assert told[1]["last_test_accuracy"] == ""
