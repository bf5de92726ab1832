"""Progress in a file is lines, and in a terminal a bar."""

from __future__ import annotations

import io
import time

import pytest

from rlkd_env.training import progress


def test_a_log_file_gets_lines_with_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", log)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    bar = progress.TeacherBar()
    for epoch in (1, 2, 3):
        bar(epoch, 3, 1.0 / epoch)
    bar.close()
    assert "\r" not in log.getvalue()
    assert log.getvalue().splitlines()[-1].startswith("teacher: 3 of 3 epochs, 100 %, ")
    assert "loss=" in log.getvalue()


def test_what_is_over_at_once_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", log)
    with progress.progress_bar("distill", "update", 480) as bar:
        for _ in range(480):
            bar.update()
    assert log.getvalue() == ""


def test_what_is_told_beside_the_count_waits_for_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", log)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    with progress.progress_bar("compare", "epoch", 100) as bar:
        time.sleep(0.1)
        bar.update()
        before = log.getvalue()
        for number in range(20):
            bar.set_postfix(runs=f"{number}/20")
        assert log.getvalue() == before
        time.sleep(0.1)
        bar.update()
    assert "runs=19/20" in log.getvalue()
