"""Every method on every task is drawn where its regret is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reports import GAINS, drawn, several_tasks_content, words_of

from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.regrets_figure import draw_regrets
from experiments.report.style import COLOURS


@pytest.fixture
def several_tasks(tmp_path: Path) -> Path:
    (tmp_path / "comparison.json").write_text(json.dumps(several_tasks_content()))
    return tmp_path


def test_every_method_on_every_task_is_a_dot_where_its_regret_is(several_tasks: Path) -> None:
    drawing = draw_regrets(ComparisonRecord.read(several_tasks))
    axes = drawn(drawing)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["steady", "T=1", "T=4", "wild"]  # rare lacks two
    colours = [label.get_color() for label in axes.get_yticklabels()]
    assert colours == [COLOURS["ink"], COLOURS["muted"], COLOURS["muted"], COLOURS["ink"]]
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    by_row: dict[int, list[float]] = {}
    for dot in dots:
        by_row.setdefault(round(dot.get_ydata()[0]), []).append(float(dot.get_xdata()[0]))
    steady = [100 * gain for gain in GAINS["steady"].values()]
    assert by_row[0] == pytest.approx(steady)
    assert len({dot.get_color() for dot in dots}) == 3  # one for each data set
    left = axes.get_xlim()[0]
    outside = [line for line in axes.lines if line.get_marker() == "<"]
    assert left > -40.0
    assert [round(line.get_ydata()[0]) for line in outside] == [3]
    assert len(by_row[3]) == 2
    strokes = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 2.6 and len(line.get_xdata())]
    assert strokes[0] == pytest.approx(sum(steady) / 3)
    intervals = [list(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 0.9]
    half = 100 * 0.001 / 3**0.5 * 4.303  # Student's t of three seeds
    assert intervals[0] == pytest.approx([steady[0] - half, steady[0] + half], abs=1e-3)
    assert drawing is not None
    assert "Arrows at the left edge: 1 results" in drawing.caption


def test_the_page_of_several_tasks_starts_with_all_of_them(several_tasks: Path) -> None:
    text = words_of(several_tasks)
    assert "Over all tasks" in text
    assert "steady +0.50 (−0.74 to +1.74)" in text
    assert "The least loss on its worst task has steady: +0.00 on flowers." in text
    assert "−40.00 (scenes)" in text
    assert text.index("by seeds alone") < text.index("best epoch on validation")  # the tables' columns


def test_one_task_has_no_such_figure(comparison: Path) -> None:
    assert draw_regrets(ComparisonRecord.read(comparison)) is None
