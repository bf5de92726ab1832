"""One run in several processes: the same student as one process, one writer, and what happens when a process dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shared_runs import CASES, COMMANDS, PAPER, QUICK, TOLERANCE

from experiments.cli import main
from experiments.session.checkpoints import PREVIOUS

ROOT = Path(__file__).parents[3]
LEARNED_TOLERANCE = 1e-3
"""The same after an agent has learned, which makes more of how sums are rounded; a run of another seed ends 0.1 off."""
LATE_TOLERANCE = 1e-2
"""The same after 120 updates and the learning of an agent."""
DRAWN_ANEW = ("rule that draws", "memory", "dropout")
"""Cases whose random numbers are drawn in every process, and so differ from those of one."""


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def distill_shared(out: Path, *options: str) -> tuple[int, str, str]:
    process = start("-m", "experiments", "distill", "--out", str(out), *QUICK, *options)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def distill_alone(out: Path, *options: str) -> None:
    assert main(["distill", "--out", str(out), *QUICK, *options]) == 0


def difference(left: Path, right: Path, name: str) -> float:
    ours, theirs = load_file(left / f"{name}.safetensors"), load_file(right / f"{name}.safetensors")
    assert ours.keys() == theirs.keys()
    return max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in ours)


def files(folder: Path) -> list[str]:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return sorted("tensorboard/events" if "tfevents" in name else name for name in names)


@dataclass(frozen=True)
class Shared:
    """What one start of two processes has left: files in a folder, and what was printed."""

    folder: Path
    output: str
    errors: str

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    process = start("tests/helpers/shared_runs.py", str(folder))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return Shared(folder, output, errors)


@pytest.fixture(scope="module")
def compared(shared: Shared) -> dict[str, Any]:
    """How far the same runs in two processes and in one end from each other."""
    return shared.read("told.json")


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in DRAWN_ANEW])
def test_two_processes_make_the_run_of_one(case: str, compared: dict[str, Any]) -> None:
    for part in ("student", "states", "rewards"):
        assert compared[case][part] < TOLERANCE, part


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_student_and_method_bit_for_bit(case: str, compared: dict[str, Any]) -> None:
    assert compared[case]["processes_differ"] == 0.0


@pytest.mark.slow
def test_what_needs_a_single_process_is_refused(compared: dict[str, Any]) -> None:
    calibrator, runs = compared["plain"]["refused"]
    assert "choose return_decomposition or uniform" in calibrator
    assert "2 runs at once need a single process" in runs


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute as torchrun's processes do here: an agent's learning makes much of how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["default", "uniform"])
def test_an_agent_learns_the_same_in_two_processes(name: str, shared: Shared, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", shared.folder / name
    distill_alone(alone, *COMMANDS[name])
    for file in ("student", "student_last", "policy"):
        assert difference(alone, together, file) < LEARNED_TOLERANCE, file
    assert files(together) == files(alone)  # with one file of events: only the first process writes
    told = [json.loads((folder / "summary.json").read_text()) for folder in (alone, together)]
    assert [summary["processes"] for summary in told] == [1, 2]
    one_image = 1 / told[0]["data"]["test"]
    accuracies = [summary["student_last_test_accuracy"] for summary in told]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1.5 * one_image)


@pytest.mark.slow
def test_the_tolerance_of_learned_runs_tells_another_run(shared: Shared, tmp_path: Path) -> None:
    distill_alone(tmp_path / "other", *COMMANDS["uniform"], "--seed", "1")
    for file in ("student", "policy"):
        assert difference(tmp_path / "other", shared.folder / "uniform", file) > 10 * LATE_TOLERANCE, file


@pytest.mark.slow
def test_only_the_first_process_prints(shared: Shared) -> None:
    assert shared.output.count("student, last epoch") == 2  # two runs of an agent
    assert shared.errors.count("rlkd: the teacher has") == 1  # told once, for both runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("indivisible", "a batch of 33 images cannot be shared equally by 2 processes"),
        (
            "around",
            "an agent around a rule needs all outputs in one process: leave torchrun away, or choose --around None",
        ),
    ],
)
def test_what_cannot_be_shared_is_told_once(name: str, message: str, shared: Shared) -> None:
    assert shared.errors.count(f"rlkd: error: {message}\n") == 1
    assert shared.errors.count("rlkd: error") == 2
    assert [shared.read(f"codes{rank}.json")[name] for rank in (0, 1)] == [2, 2]
    assert not (shared.folder / name).exists()


def rank_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((value.partition(b"=")[2].decode() for value in variables if value.startswith(b"RANK=")), "")


def workers(launcher: int) -> dict[str, int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return {rank_of(int(pid)): int(pid) for pid in children if rank_of(int(pid))}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_other_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole, killed, alone = tmp_path / "whole", tmp_path / "killed", tmp_path / "alone"
    options = (*PAPER, "--epochs", "30", "--checkpoint-seconds", "0")
    distill_alone(whole, *options)
    process = start("-m", "experiments", "distill", "--out", str(killed), *QUICK, *options)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint" / PREVIOUS).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks = workers(process.pid)
    os.kill(ranks["1"], signal.SIGKILL)
    before = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - before < 60
    assert process.returncode != 0
    assert errors.count("rlkd: error: another process of the run has ended") == 1
    assert not Path(f"/proc/{ranks['0']}").exists()
    assert not (killed / "summary.json").exists()
    shutil.copytree(killed, alone)
    code, _, errors = distill_shared(killed, "--resume")
    assert code == 0, errors
    distill_alone(alone, "--resume")
    for resumed in (killed, alone):
        assert difference(whole, resumed, "student_last") < LATE_TOLERANCE


def test_only_distill_runs_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["teacher"]) == 2
    assert "start this command without torchrun" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(["teacher"]) == 2
    assert capsys.readouterr().err == ""


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkd_env.errors import UsageError
    from rlkd_env.runs.distributed.processes import Processes

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 processes on this machine need as many GPUs, not 2"):
        Processes.join("cuda")
