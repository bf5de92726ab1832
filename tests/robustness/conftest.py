"""Small folders of every kind, which attacks copy and damage, and how large an attack is."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_reports import CREDIT
from PIL import Image

from experiments.cli import main
from experiments.session.checkpoints import SafePoints

QUICK = ["--no-progress", "--no-tensorboard", "--device", "cpu"]
LIMIT = 120
"""Seconds after which a case hangs."""


class Hang(BaseException):
    """Something waits for ever; no code takes it for an error of a file."""


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    """Whether the attack is made at its full size, which ``pytest -m attack`` asks for."""
    return "attack" in request.config.option.markexpr and "not attack" not in request.config.option.markexpr


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Counts the cases of an attack by their kind, which ``--junitxml`` writes beside the test."""
    cases: Counter[str] = Counter()
    yield cases
    for kind, number in cases.items():
        record_property(kind, number)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Nothing here may wait for ever, for instance for the other end of a FIFO."""

    def hang(signum: int, frame: Any) -> None:
        raise Hang("a command hangs")

    before = signal.signal(signal.SIGALRM, hang)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str | None]:
    """Return what runs a command that may succeed, or refuse in a line; it returns what is wrong, or None."""

    def run(arguments: list[str]) -> str | None:
        signal.alarm(LIMIT)
        try:
            code = main(arguments)
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
        shown = capsys.readouterr()
        errors = [line for line in shown.err.splitlines() if line.startswith("rlkd: error: ")]
        if code not in (0, 1, 2) or "Traceback" in shown.err:
            return f"exit code {code}: {shown.err[-600:]}"
        return f"{len(errors)} lines: {shown.err[-600:]}" if code == 2 and len(errors) != 1 else None

    return run


@pytest.fixture(scope="session")
def folders(make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A finished run of an agent, one that was stopped, a teacher, a comparison and data, each in a folder."""

    def fill(folder: Path) -> None:
        agent = ["--agent", "ppo", "--warmup-epochs", "1", "--epochs", "3", "--student", "mlp8"]
        assert main(["distill", *agent, *QUICK, "--out", str(folder / "run")]) == 0
        (folder / "run" / "credit.json").write_text(json.dumps(CREDIT))
        _stopped(["distill", *agent, *QUICK, "--out", str(folder / "stopped")])
        members = ["--rule", "fixed", "--members", "2", "4", "--run-mode", "serial", "--epochs", "2"]
        members += ["--student", "mlp8"]
        _stopped(["distill", *members, *QUICK, "--out", str(folder / "population")])
        assert main(["distill", *members, *QUICK, "--out", str(folder / "members")]) == 0
        teacher = ["--model", "mlp8", "--epochs", "2", "--device", "cpu", "--no-progress"]
        assert main(["teacher", *teacher, "--out", str(folder / "teacher")]) == 0
        options = ["--rules", "fixed", "lskd", "--seeds", "1", "--epochs", "1", "--student", "mlp8", "--device", "cpu"]
        assert (
            main(["compare", *options, "--executor", "serial", "--no-progress", "--out", str(folder / "comparison")])
            == 0
        )
        _write_data(folder / "data")

    return make_once("attacked", fill)


def _stopped(arguments: list[str]) -> None:
    """Make half of a run, as Ctrl-C leaves it."""
    reach = SafePoints.reach

    def stop(points: SafePoints) -> None:
        if points._parts["run"].step_count >= 4:
            points.stop.ask()
        reach(points)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SafePoints, "reach", stop)
        assert main(arguments) == 130


def _write_data(folder: Path) -> None:
    draw = np.random.default_rng(0)
    (folder / "images" / "train").mkdir(parents=True)
    arrays = {"x_train": draw.integers(0, 256, (60, 8, 8), np.uint8), "y_train": np.arange(60) % 3}
    np.savez(folder / "arrays.npz", **arrays)
    np.savez_compressed(folder / "compressed.npz", **arrays)
    for name in ("cat", "dog"):
        (folder / "images" / "train" / name).mkdir()
        for number in range(15):
            pixels = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
            pixels.save(folder / "images" / "train" / name / f"{number}.{'png' if number % 2 else 'jpg'}")


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return what copies one of the folders for a case to damage."""
    count = 0

    def make(name: str) -> Path:
        nonlocal count
        count += 1
        return Path(shutil.copytree(folders / name, tmp_path / f"{name}{count}"))

    return make
