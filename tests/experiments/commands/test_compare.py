"""``rlkd compare`` from end to end: what it writes, how it stops and goes on, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import main, parse
from experiments.compare.plan import make_plan
from experiments.compare.work import make_run
from experiments.config import CompareConfig
from experiments.session.session import DistillSession
from experiments.threads import using_threads

TIMES = ("seconds", "cpu_seconds", "agent_share")
QUICK = ("--epochs", "4", "--warmup-epochs", "1", "--seeds", "2", "--no-progress", "--device", "cpu")
ARMS = (
    "--rules",
    "lskd",
    "--fixed-temperatures",
    "1",
    "--agents",
    "ppo",
    "--calibrators",
    "uniform",
    "--student-alone",
)


def compare(out: Path, *options: str) -> int:
    return main(["compare", "--out", str(out), "--executor", "sequence", *QUICK, *options])


def rows(out: Path) -> list[dict[str, str]]:
    """Return the lines without what differs from one time to the next."""
    with (out / "comparison.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def comparison(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    assert compare(out, *ARMS) == 0
    return out


@pytest.mark.slow
def test_there_is_a_line_for_every_run(finished: Path) -> None:
    found = rows(finished)
    names = [(row["arm"], row["seed"]) for row in found]
    assert names == [
        (arm, seed) for arm in ("T=1", "T=4", "lskd", "ppo-uniform", "student_alone") for seed in ("0", "1")
    ]
    for row in found:
        folder = finished / "runs" / "digits" / row["arm"] / f"seed{row['seed']}"
        told = json.loads((folder / "summary.json").read_text())
        assert float(row["last_test_accuracy"]) == told["student_last_test_accuracy"]
        assert float(row["chosen_test_accuracy"]) == told["student_best_test_accuracy"]
        assert int(row["chosen_epoch"]) == told["student_best_epoch"]
        assert row["config_hash"] == told["config_hash"]
        assert (row["diverged"], row["error"]) == ("False", "")
        assert told["threads"] == 1
        assert not list(folder.glob("events.out.tfevents.*"))
    temperatures = {row["arm"]: row["mean_temperature"] for row in found}
    assert (temperatures["T=1"], temperatures["T=4"], temperatures["student_alone"]) == ("1.0", "4.0", "")
    assert float(temperatures["lskd"]) not in (1.0, 4.0)


@pytest.mark.slow
def test_the_json_says_the_same_and_what_it_means(finished: Path) -> None:
    told = comparison(finished)
    assert [run["arm"] for run in told["runs"]] == [row["arm"] for row in rows(finished)]
    assert all((finished / run["folder"] / "student.safetensors").is_file() for run in told["runs"])
    assert told["arms"]["lskd"] == {"rule": "lskd", "policy": None}
    assert told["planned_runs"] == 10
    last = told["statistics"]["digits"]["last"]
    assert last["best_fixed"] in ("T=1", "T=4")
    assert last["arms"][last["best_fixed"]]["regret"]["mean"] == 0.0
    values = [run["last_test_accuracy"] for run in told["runs"] if run["arm"] == "lskd"]
    assert last["arms"]["lskd"]["mean"]["mean"] == pytest.approx(sum(values) / 2)
    learner = next(run for run in told["runs"] if run["arm"] == "ppo-uniform")
    assert 0.0 < learner["agent_share"] < 1.0


@pytest.mark.slow
def test_every_run_is_what_distill_does(finished: Path, tmp_path: Path) -> None:
    options = ["--agent", "ppo", "--epochs", "4", "--warmup-epochs", "1", "--seed", "1", "--calibrator", "uniform"]
    options += ["--device", "cpu"]
    with using_threads(1):
        assert main(["distill", "--out", str(tmp_path / "a"), "--no-progress", *options]) == 0
    for name in ("student.safetensors", "student_last.safetensors", "policy.safetensors", "config.json"):
        compared = finished / "runs" / "digits" / "ppo-uniform" / "seed1" / name
        assert compared.read_bytes() == (tmp_path / "a" / name).read_bytes(), name


@pytest.mark.slow
def test_nothing_is_repeated_and_new_arms_and_seeds_are_added(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("summary.json")}
    content = (finished / "comparison.csv").read_bytes()
    assert compare(finished, *ARMS) == 0
    assert (finished / "comparison.csv").read_bytes() == content  # the seconds too
    assert "over T=4" in capsys.readouterr().out
    assert compare(finished, *ARMS, "--seeds", "3", "--rules", "linear") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["seed"] for row in rows(finished)] == ["0", "1", "2"] * 5
    assert compare(finished, *ARMS) == 0
    assert (finished / "comparison.csv").read_bytes() == content


@pytest.mark.slow
def test_a_comparison_is_made_in_parts_and_puts_together_what_other_machines_made(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    assert compare(elsewhere, *ARMS, "--only", "*/T=*") == 0
    assert [row["arm"] for row in rows(elsewhere)] == ["T=1", "T=1", "T=4", "T=4"]
    assert comparison(elsewhere)["planned_runs"] == 10
    assert "over T=4" in capsys.readouterr().out
    assert compare(here, *ARMS, "--only", "digits/lskd", "*/ppo*", "*/student_alone") == 0
    assert "the baseline T=4 is still missing" in capsys.readouterr().out
    for summary in elsewhere.rglob(
        "summary.json"
    ):  # what a run is known by; the rest is for its curves and its student
        copied = here / summary.relative_to(elsewhere)
        copied.parent.mkdir(parents=True)
        copied.write_bytes(summary.read_bytes())
    before = {path: path.stat().st_mtime_ns for path in here.rglob("summary.json")}
    assert compare(here, *ARMS) == 0
    assert {path: path.stat().st_mtime_ns for path in here.rglob("summary.json")} == before
    assert rows(here) == rows(finished)


def test_a_dry_run_says_what_is_missing_and_makes_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path / "none", *ARMS, "--dry-run") == 0
    assert "runs to make: 10," in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "none").exists()
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert compare(finished, *ARMS, "--fixed-temperatures", "1", "2", "--only", "*/T=2/seed0", "--dry-run") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "runs to make: 1," in told
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert compare(finished, *ARMS, "--dry-run") == 0
    assert "runs to make: 0, which take about 00:00 one by one" in " ".join(capsys.readouterr().out.split())
    assert compare(tmp_path / "none", "--dry-run", "--rules", "lskd", "warm") == 2
    assert "unknown rule" in capsys.readouterr().err


def test_other_settings_are_refused_unless_they_may_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, "--rules", "lskd") == 0
    assert compare(tmp_path, "--rules", "lskd", "--epochs", "3") == 2
    assert "holds a run with another epochs: add --overwrite" in capsys.readouterr().err
    lskd = tmp_path / "runs" / "digits" / "lskd" / "seed0" / "summary.json"
    fixed = tmp_path / "runs" / "digits" / "T=4" / "seed0" / "summary.json"
    before = fixed.stat().st_mtime_ns
    assert compare(tmp_path, "--arms", "lskd", "{rule: lskd, epochs: 3}", "--overwrite") == 0
    assert json.loads(lskd.read_text())["epochs"] == 3
    assert fixed.stat().st_mtime_ns == before


def test_a_run_that_diverges_is_a_line_with_its_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, "--arms", "wild", "{rule: fixed, learning_rate: 1.0e+9}") == 0
    wild = [row for row in rows(tmp_path) if row["arm"] == "wild"]
    assert [row["diverged"] for row in wild] == ["True", "True"]
    assert [float(row["last_test_accuracy"]) for row in wild] == [0.0, 0.0]  # there is no good student
    assert "wild (2 diverged)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_made_at_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = DistillSession.execute

    def fail(session: DistillSession) -> None:
        if session.config.agent.rule == "lskd" and session.config.output.seed == 1:
            raise MemoryError("no\nmore")
        execute(session)

    monkeypatch.setattr(DistillSession, "execute", fail)
    assert compare(tmp_path, "--rules", "lskd") == 1
    assert "digits/lskd/seed1 failed: MemoryError: no more" in capsys.readouterr().err
    assert [row["error"] for row in rows(tmp_path)] == ["", "", "", "MemoryError: no more"]
    monkeypatch.undo()
    assert compare(tmp_path, "--rules", "lskd") == 0
    assert [row["error"] for row in rows(tmp_path)] == [""] * 4


@pytest.mark.slow
def test_a_run_that_is_broken_off_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = parse(["compare", "--out", str(tmp_path / "a"), "--agents", "ppo", *QUICK, "--epochs", "30"])
    assert isinstance(config, CompareConfig)
    (run,) = [run for run in make_plan(config).runs_of("digits", "ppo") if run.seed == 0]
    run = replace(run, config=replace(run.config, output=replace(run.config.output, checkpoint_seconds=0.0)))
    made: list[int] = []

    def stop_after_half(epochs: int) -> None:
        made.append(epochs)
        if len(made) == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_run(run, 1, stop_after_half)
    assert run.summary() is None
    again: list[int] = []
    assert make_run(run, 1, again.append).error is None
    assert run.summary() is not None
    assert sum(again[:-1]) < 30  # one by one; those that were not made again count at the end
    assert sum(again) == 30
    whole = replace(run.config, output=replace(run.config.output, out=str(tmp_path / "b")))
    make_run(replace(run, config=whole), 1, again.append)
    for name in ("student_last.safetensors", "policy.safetensors"):
        assert (run.config.folder / name).read_bytes() == (whole.folder / name).read_bytes()


# Ctrl-C is heard also where the tests themselves run in the background, where shells switch it off.
ENTRY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from experiments.cli import entry_point
entry_point()
"""


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ENTRY, "compare", "--out", str(out), "--jobs", "1", *QUICK, *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_runs(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list(out.rglob("summary.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_comparison_that_is_stopped_and_killed_ends_with_the_same_lines(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ("--rules", "lskd", "--seeds", "6", "--epochs", "40")
    assert compare(whole, *options) == 0
    process = start(stopped, *options)
    wait_for_runs(stopped, 1, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "go on with the same command" in errors
    assert "Traceback" not in errors
    assert 1 <= len(rows(stopped)) < 12
    process = start(stopped, *options)
    wait_for_runs(stopped, len(rows(stopped)) + 1, process)
    workers = children(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # they do not outlive it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(stopped.rglob("summary.json"))) < 12
    assert compare(stopped, *options) == 0
    assert rows(stopped) == rows(whole)
    assert [row["error"] for row in rows(stopped)] == [""] * 12


DEADLY = """
import multiprocessing, os
from agents.rules.simple import FixedTemperature

class Deadly(FixedTemperature):
    def forward(self, outputs):
        if multiprocessing.parent_process() is not None:  # where a comparison makes its runs
            os._exit(9)
        return super().forward(outputs)
"""


@pytest.mark.slow
def test_an_arm_that_kills_its_process_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    arms = ("--arms", "deadly", "{rule: 'deadly:Deadly'}", "--rules", "lskd", "--fixed-temperatures", "1")
    assert main(["compare", "--out", str(tmp_path / "out"), "--jobs", "2", *QUICK, "--seeds", "1", *arms]) == 1
    found = {(row["arm"], row["seed"]): row["error"] for row in rows(tmp_path / "out")}
    assert len(found) == 4
    assert [name for name, error in found.items() if error] == [("deadly", "0")]
    told = capfd.readouterr().err
    assert "digits/deadly/seed0 failed: its process was killed, perhaps for its memory" in told
    assert told.count("the teacher has") <= 1  # and not once for every process


@pytest.mark.slow
def test_two_comparisons_do_not_work_in_one_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    with FileLock(finished / ".lock"):
        assert compare(finished, *ARMS) == 2
    assert "another rlkd works in" in capsys.readouterr().err


def test_without_ray_one_line_tells_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["compare", "--out", str(tmp_path / "a"), "--executor", "ray", *QUICK]) == 2
    assert "pip install ray" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_makes_the_same_runs(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert main(["compare", "--out", str(tmp_path / "a"), "--executor", "ray", *QUICK, *ARMS]) == 0
    assert rows(tmp_path / "a") == rows(finished)
