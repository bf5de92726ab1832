"""The comparisons in ``docs/results``: their pages are not in git, as ``rlkd report`` makes them from the JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import main

RESULTS = sorted((Path(__file__).parents[3] / "docs" / "results").glob("*/comparison.json"))


@pytest.mark.parametrize("comparison", RESULTS, ids=lambda path: path.parent.name)
def test_the_page_is_made_without_the_run_folders(tmp_path: Path, comparison: Path) -> None:
    assert main(["report", str(comparison.parent), "--out", str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "the others have no history" in html  # so there are no curves, but everything else
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert {path.name for path in comparison.parent.glob("*.png")} <= pictures


def test_there_are_results() -> None:
    assert RESULTS
