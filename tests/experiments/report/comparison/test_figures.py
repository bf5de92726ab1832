"""Intervals and curves are drawn where the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_reports import (
    ARMS,
    drawn,
)

from experiments.report.comparison.figures import draw_accuracies, draw_differences
from experiments.report.comparison.loading import ComparisonRecord


def test_intervals_and_curves_are_drawn_where_the_numbers_say(comparison: Path) -> None:
    (task,) = ComparisonRecord.read(comparison).tasks
    axes = drawn(draw_differences(task))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["better", "same", "worse"]
    bars = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2.4]
    expected = [[100 * (ARMS[name][1] - 0.004), 100 * (ARMS[name][1] + 0.004)] for name in ("better", "same", "worse")]
    assert np.array(bars) == pytest.approx(np.array(expected))
    curve = next(line for line in drawn(draw_accuracies(task)).lines if line.get_label() == "better")
    mean = 100 * (ARMS["better"][0] + 0.0015 - 0.5 / np.arange(1, 13))
    assert list(curve.get_ydata()) == pytest.approx(list(mean))
