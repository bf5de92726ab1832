"""Commands that are stopped by signals or killed at any moment: a line, no traceback, and nothing lost or doubled."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command, all_end, children, fork, killed, signalled, start, wait_for_writes, wait_until

from experiments.cli import main
from rlkd_env.utils.files import read_tensors, tensors_hash

pytestmark = [
    pytest.mark.attack,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]
DEVICE = ["--device", "cpu", "--no-progress"]
DISTILL = ["distill", "--agent", "ppo", "--warmup-epochs", "1", "--student", "mlp8", *DEVICE, "--no-tensorboard"]
LONG = ["--epochs", "5000"]
COMPARE = ["compare", "--rules", "fixed", "lskd", "--student", "mlp8", *DEVICE]
TRAIN = ["train-agent", "--num-runs", "4", "--population", "4", "--run-mode", "workers", *DEVICE]
ARMS = ("T=4", "lskd")
COMMANDS = {
    "distill": [*DISTILL, *LONG],
    "student alone": ["distill", "--rule", "fixed", "--student-alone", "--epochs", "300", *DEVICE, "--no-tensorboard"],
    "teacher": ["teacher", *LONG, *DEVICE],
    "compare": [*COMPARE, *LONG, "--seeds", "2", "--jobs", "1"],
    "train-agent": [*TRAIN, "--updates", "1000"],
    "credit": ["credit", *LONG, "--device", "cpu", "--student", "mlp8"],
    "bench": ["bench", "--device", "cpu", "--seconds", "600"],
}
FIRST = {"student alone": "student_last.safetensors"}
"""Files that are waited for before anything is stopped."""
SIGNALS = [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1), (signal.SIGHUP, 1)]


Start = Callable[..., Command]


@pytest.fixture
def begin(is_full: bool) -> Start:
    """Start a command, in an attack of full size in a new interpreter, whose imports are then under attack too."""
    return start if is_full else fork


def told_once(code: int, errors: str, signum: int) -> None:
    """Check how a command has ended that a signal has stopped."""
    assert code == 128 + signum, errors
    assert "Traceback" not in errors, errors
    lines = [line for line in errors.splitlines() if "interrupted" in line]
    assert len(lines) == 1, errors


@pytest.mark.parametrize("name", COMMANDS)
def test_signals_at_any_moment(name: str, is_full: bool, begin: Start, tally: Counter[str], tmp_path: Path) -> None:
    draw = random.Random(name)
    for moment in (0.1, 0.5, 1.5, 4.0, 8.0) if is_full else (draw.choice([0.05, 0.5, 1.0]),):
        for signum, times in SIGNALS if is_full else (draw.choice(SIGNALS),):
            out = tmp_path / f"{moment}-{signum}-{times}"
            tally["signals"] += 1
            process = begin(*COMMANDS[name], "--out", str(out))
            if name in FIRST:
                wait_until((out / FIRST[name]).exists, process)
            stopped_after(moment / 10 if name in FIRST else moment, process, signum, times)


@pytest.mark.parametrize("name", ["evaluate", "export", "board"])
def test_signals_to_what_reads_a_run(
    name: str, is_full: bool, begin: Start, tally: Counter[str], copy: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = {"evaluate": ["--device", "cpu"], "export": ["--out", str(out)], "board": ["--port", "0"]}[name]
    for moment in (0.1, 0.4, 0.8) if is_full else (0.8 if name == "board" else 0.0,):  # the others end soon
        for signum, times in SIGNALS[1:] if is_full else (SIGNALS[2],):  # one Ctrl-C is how a board ends well
            tally["signals"] += 1
            stopped_after(moment, begin(name, str(copy("run")), *options), signum, times)
            assert not list(out.glob(".*"))


def test_a_signal_during_imports(tmp_path: Path) -> None:
    stopped_after(0.4, start(*COMMANDS["distill"], "--out", str(tmp_path / "run")), signal.SIGINT, 2)


def stopped_after(moment: float, process: Command, signum: int, times: int) -> None:
    """Stop a command after some seconds, and check how it ends."""
    time.sleep(moment)
    started = children(process.pid)
    if process.poll() is None:
        told_once(*signalled(process, signum, times), signum)
    else:
        process.communicate()
    all_end(started)


def test_a_stopped_teacher_goes_on_within_the_epoch_to_the_same_teacher(
    is_full: bool, begin: Start, tally: Counter[str], tmp_path: Path
) -> None:
    options = ["--model", "mlp16", "--epochs", "6", "--batch-size", "1", *DEVICE]
    draw = random.Random(0)
    assert main(["teacher", *options, "--out", str(tmp_path / "whole")]) == 0
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_full else (signal.SIGTERM,):
        out = tmp_path / str(signum)
        process = begin("teacher", *options, "--out", str(out))
        wait_until((out / "config.json").exists, process)
        tally["signals"] += 1
        time.sleep(draw.uniform(0.0, 0.3))
        code, errors = signalled(process, signum)
        told_once(code, errors, signum)
        assert "go on with: rlkd teacher --resume" in errors
        assert main(["teacher", "--resume", "--no-progress", "--out", str(out)]) == 0
        assert results(out) == results(tmp_path / "whole") != {}


OFTEN = ["--checkpoint-seconds", "0"]
AGAIN = ["--resume", "--no-progress", *OFTEN]
KILLED = {
    "distill": ([*DISTILL, *OFTEN], ["distill", *AGAIN]),
    "teacher": (["teacher", "--model", "mlp16", *DEVICE, *OFTEN], ["teacher", *AGAIN]),
    "train-agent": ([*TRAIN, *OFTEN, "--instances", "set.yaml"], ["train-agent", *AGAIN]),
}
INSTANCES = """
common: {dataset: digits, student: mlp8, epochs: 2}
train: [{name: a, seeds: [0, 100]}]
held_out: [{name: b, seeds: [100, 102]}]
"""
RESULTS = ("student_last.safetensors", "policy.safetensors", "teacher.safetensors")


def results(folder: Path) -> dict[str, str]:
    return {name: tensors_hash(read_tensors(folder / name)[0]) for name in RESULTS if (folder / name).is_file()}


LENGTHS = {"distill": ["--epochs", "60"], "teacher": ["--epochs", "200"], "train-agent": ["--updates", "6"]}
SHORT = {"distill": ["--epochs", "14"], "teacher": ["--epochs", "60"], "train-agent": ["--updates", "2"]}


WRITES = {"distill": 5, "teacher": 5, "train-agent": 2, "compare": 4}
"""So many times at most a command writes before it is killed, several times over; it would write many more."""


@pytest.mark.parametrize("name", KILLED)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not(
    name: str, is_full: bool, begin: Start, tally: Counter[str], tmp_path: Path
) -> None:
    first, again = KILLED[name]
    (tmp_path / "set.yaml").write_text(INSTANCES)
    first = [str(tmp_path / word) if word == "set.yaml" else word for word in first]
    first = [*first, *(LENGTHS if is_full else SHORT)[name]]
    whole, broken, draw = tmp_path / "whole", tmp_path / "broken", random.Random(0)
    assert main([*first, "--out", str(whole)]) == 0
    kills, command = 0, first
    while kills < (12 if is_full else 2):
        process = begin(*command, "--out", str(broken))
        if not killed_after(draw.randrange(WRITES[name]), broken, process, draw):
            break
        tally["kills"] += 1
        kills, command = kills + 1, again
    assert kills
    assert main([*again, "--out", str(broken)]) == 0
    assert results(broken) == results(whole) != {}
    assert [path for path in broken.rglob(".*") if path.name != ".lock"] == []


def killed_after(writes: int, folder: Path, process: Command, draw: random.Random) -> bool:
    """Kill a command some moment after so many writes to a folder that holds a run or a comparison.

    Return False if it has ended before.
    """
    begun = [folder / "config.json", folder / "comparison.json"]
    if wait_until(lambda: any(file.exists() for file in begun), process) and wait_for_writes(folder, writes, process):
        time.sleep(draw.uniform(0.0, 0.01))
    if process.poll() is not None:
        process.communicate()
        return False
    killed(process)
    return True


def test_a_comparison_that_is_killed_again_and_again_has_every_run_once(
    is_full: bool, begin: Start, tally: Counter[str], tmp_path: Path
) -> None:
    length = ["--epochs", "20", "--jobs", "2"] if is_full else ["--epochs", "4", "--jobs", "1"]
    seeds = 3 if is_full else 2
    options = [*COMPARE, *length, "--seeds", str(seeds), "--out", str(tmp_path / "broken")]
    draw, kills = random.Random(0), 0
    while kills < (10 if is_full else 2):
        process = begin(*options)
        if not killed_after(draw.randrange(WRITES["compare"]), tmp_path / "broken", process, draw):
            break
        tally["kills"] += 1
        kills += 1
    assert kills
    assert main([*options, "--executor", "serial"]) == 0
    rows = json.loads((tmp_path / "broken" / "comparison.json").read_text())["runs"]
    assert sorted((row["arm"], row["seed"]) for row in rows) == [(arm, seed) for arm in ARMS for seed in range(seeds)]
    assert not any(row["error"] for row in rows)


def test_torchrun_is_stopped_and_killed(is_full: bool, tally: Counter[str], tmp_path: Path) -> None:
    epochs = 2000 if is_full else 10
    shared = ["--rule", "fixed", "--student", "mlp8", *DEVICE, "--no-tensorboard", *OFTEN]
    command, out = ["distill", *shared, "--epochs", str(epochs)], tmp_path / "broken"
    for number in range(10 if is_full else 1):
        process = start(*command, "--out", str(out), shared=True)
        if not wait_for_writes(out / "checkpoint", 1, process):  # before that it is torchrun that is stopped
            process.communicate()
            break
        time.sleep(0.3 * number)
        if process.poll() is not None:
            process.communicate()
            break
        if number % 2:
            tally["signals"] += 1
            code, errors = signalled(process, signal.SIGTERM)
            assert code != 0
            assert "interrupted at update" in errors
        else:
            tally["kills"] += 1
            killed(process)
        command = ["distill", *AGAIN]
    assert main(["distill", "--resume", "--no-progress", "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["epochs"] == epochs


def test_leftovers_of_a_killed_process_are_removed(copy: Callable[[str], Path]) -> None:
    folder = copy("stopped")
    left = [folder / ".history.json.abcd1234", folder / "checkpoint" / ".checkpoint.pt.a_b_c_d_"]
    kept = folder / ".mine"
    for path in (*left, kept):
        path.write_bytes(b"half")
    assert main(["distill", "--resume", "--no-progress", "--out", str(folder)]) == 0
    assert not any(path.exists() for path in left)
    assert kept.exists()
