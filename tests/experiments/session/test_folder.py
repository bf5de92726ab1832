"""What replacing a run takes along."""

from __future__ import annotations

from pathlib import Path

from experiments.session.folder import clear_folder


def test_a_run_that_is_replaced_takes_its_report_along(run: Path) -> None:
    (run / "report.html").write_text("")
    (run / "report").mkdir()
    clear_folder(run)
    assert sorted(path.name for path in run.iterdir()) == ["credit.json"]
