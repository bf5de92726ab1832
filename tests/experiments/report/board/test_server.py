"""The board tells the runs of a folder, and nothing else, to this machine alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from made_reports import change

from experiments.cli import main
from experiments.report.board.runs import describe_run, run_folders
from experiments.report.board.server import create_server
from experiments.session.folder import locked

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def board(run: Path) -> Iterator[str]:
    """The address of a board for the folder of a run."""
    server = create_server(run.parent, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def read(address: str, **headers: str) -> str:
    with urlopen(Request(address, headers=headers), timeout=20) as answer:
        return answer.read().decode()


def status_of(address: str, **headers: str) -> int:
    with pytest.raises(HTTPError) as error:
        read(address, **headers)
    return error.value.code


def test_the_board_tells_what_the_folders_hold(board: str, run: Path) -> None:
    (told,) = json.loads(read(f"{board}/runs.json"))
    summary = json.loads((run / "summary.json").read_text())
    epochs = json.loads((run / "history.json").read_text())["epochs"]
    assert told["name"] == run.name
    assert told["status"] == "finished"
    assert told["student test"] == pytest.approx(100 * summary["student_test_accuracy"], abs=1e-3)
    assert told["curves"]["temperature_mean"] == pytest.approx([one["temperature_mean"] for one in epochs], abs=1e-3)
    assert "Which temperatures" in read(f"{board}/report/{run.name}")
    assert "<table>" in read(board)


def test_a_run_that_goes_on_is_told_from_one_that_has_stopped(run: Path) -> None:
    (run / "summary.json").unlink()
    assert describe_run("one", run)["status"] == "stopped"
    with locked(run):
        assert describe_run("one", run)["status"] == "running"
    (run / "history.json").write_text("{")
    assert describe_run("one", run)["status"] == "damaged"


def test_nothing_but_runs_is_read_and_no_other_site_may_ask(board: str, run: Path) -> None:
    (run.parent / "secret").mkdir()
    (run.parent / "secret" / "config.json").write_text("{}")
    assert status_of(f"{board}/report/secret") == 404
    assert status_of(f"{board}/report/../../etc/passwd") == 404
    assert status_of(f"{board}/runs.json", Host="evil.example:80") == 403
    assert list(run_folders(run.parent)) == [run.name]


def test_a_taken_port_and_a_missing_folder_are_told(
    board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["board", str(tmp_path), "--port", board.rpartition(":")[2]]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert main(["board", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_shows_runs_and_curves_in_a_browser(board: str, run: Path, tmp_path: Path) -> None:
    change(run / "config.json", method="kd")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=5000", "--dump-dom", board]
    started = time.monotonic()
    shown = ""
    while "<polyline" not in shown and time.monotonic() - started < 60:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown.count("<polyline") == 2  # accuracy and temperature of the one run
    assert f"/report/{run.name}" in shown
    assert "1 runs, 0 of them going" in shown
