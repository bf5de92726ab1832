"""``rlkd report``: where it writes, how far it goes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reports import (
    assert_refused,
    change,
    comparison_content,
    shown,
)

from experiments.cli import main


def test_a_run_that_broke_off_is_shown_as_far_as_it_came(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "summary.json").unlink()
    kept = json.loads((run / "history.json").read_text())["epochs"][:7]
    change(run / "history.json", epochs=kept)
    assert main(["report", str(run)]) == 0
    told = "This run has not finished: 7 of 20 epochs are recorded. Go on with: rlkd distill --resume"
    assert told in shown((run / "report.html").read_text())
    assert "has not finished" in capsys.readouterr().out
    assert "time" not in {path.stem for path in (run / "report").glob("*.png")}
    for name in ("history.json", "trace.safetensors", "credit.json"):
        (run / name).unlink()
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()
    assert "nothing has been recorded yet" in shown(html)
    assert "<svg" not in html
    assert not list((run / "report").glob("*.png"))  # those of the earlier report are gone


def test_the_command_writes_where_it_is_told_and_leaves_the_run_alone(real_run: Path, reports: dict[str, Path]) -> None:
    assert sorted(path.name for path in reports["run"].iterdir()) == ["report", "report.html"]
    assert not (real_run / "report.html").exists()


def test_bad_comparisons_and_folders_are_refused(
    comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(comparison, "--credit belongs to the report of a run", capsys, "--credit", "x")
    content = comparison_content()
    del content["statistics"]["digits"]["last"]["arms"]["same"]["difference"]
    for damaged, message in (
        (content, "comparison.json is damaged: KeyError 'difference'"),
        (comparison_content() | {"version": 2}, "not a comparison of version 1"),
        (comparison_content() | {"runs": [3]}, "comparison.json is damaged"),
        ([], "comparison.json is damaged: [] is not names and values"),
    ):
        (comparison / "comparison.json").write_text(json.dumps(damaged))
        assert_refused(comparison, message, capsys)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "empty", "holds neither a run (config.json) nor a comparison (comparison.json)", capsys)
    assert_refused(tmp_path / "nowhere", "does not exist", capsys)
    assert_refused(tmp_path / "file", "is no folder", capsys)


def test_a_file_in_place_of_the_folder_to_write_into_is_refused(
    comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert_refused(comparison, "mine.txt is a file, not a folder", capsys, "--out", str(tmp_path / "mine.txt"))
