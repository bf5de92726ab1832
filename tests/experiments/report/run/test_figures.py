"""The figures of a run draw what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reports import (
    drawn,
)

from experiments.report.run.figures import PARTS, draw_accuracy_over_epochs, draw_temperature_over_epochs, draw_time
from experiments.report.run.loading import RunRecord


def test_the_figures_draw_what_was_recorded(run: Path) -> None:
    record = RunRecord.read(run)
    epochs = json.loads((run / "history.json").read_text())["epochs"]
    lines = {line.get_label(): line for line in drawn(draw_accuracy_over_epochs(record)).lines}
    assert list(lines["validation"].get_xdata()) == list(range(1, 21))
    assert list(lines["validation"].get_ydata()) == pytest.approx([100 * row["validation_accuracy"] for row in epochs])
    kept = record.percent("student_test_accuracy")
    assert lines[f"test, student {kept:.2f}"].get_ydata()[0] == kept
    assert lines[f"test, student {kept:.2f}"].get_xdata()[0] == 20
    low, high = drawn(draw_accuracy_over_epochs(record)).get_ylim()
    assert low <= min(lines["validation"].get_ydata())  # learning is not cut off
    assert high >= max(lines["validation"].get_ydata())
    median = next(line for line in drawn(draw_temperature_over_epochs(record)).lines if line.get_label() == "median")
    assert list(median.get_ydata()) == pytest.approx([row["temperature_quantiles"][2] for row in epochs])
    seconds = [bar.get_width() for bar in drawn(draw_time(record)).patches]
    assert seconds == pytest.approx([record.number(f"{part}_seconds") for part in PARTS])
