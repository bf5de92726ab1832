"""Teacher or data that are exchanged between a crash and --resume, or before a run is validated, are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main

QUICK = ["--device", "cpu", "--no-progress", "--no-tensorboard"]
DATA = ["--dataset", "arrays", "--data-path", "data.npz"]


def write_teacher(seed: int) -> None:
    options = ["--model", "mlp6", "--epochs", "20", "--learning-rate", "0.02", "--seed", str(seed), "--overwrite"]
    assert main(["teacher", *DATA, *options, *QUICK[:3], "--out", "teacher"]) == 0


def write_data(changed: str = "") -> None:
    """Write 200 images, a quarter of each of which tells its class; perhaps with one pixel or label changed."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    pixels = generator.integers(0, 100, (200, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[2 * label : 2 * label + 2] += 120
    arrays = {"x_train": pixels, "y_train": labels, "x_test": pixels[:40] // 2, "y_test": labels[:40]}
    if changed.startswith("x"):
        arrays[changed] = arrays[changed].copy()
        arrays[changed][:, 0, 0] ^= 1
    elif changed:
        arrays[changed] = arrays[changed].copy()
        arrays[changed][:2] = 3
    np.savez("data.npz", **arrays)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run that looks as if it had been killed after its last checkpoint, and the options that resume it."""
    monkeypatch.chdir(tmp_path)
    write_data()
    write_teacher(0)
    options = [*DATA, "--teacher", "teacher", "--student", "mlp6"]
    options += ["--rule", "fixed", "--epochs", "2", "--validation-images", "30", "--checkpoint-seconds", "0"]
    assert main(["distill", *options, *QUICK, "--out", "run"]) == 0
    Path("run/summary.json").rename("summary.json")
    return ["distill", "--resume", "--out", "run", *QUICK[2:]]


@pytest.mark.parametrize("changed", ["teacher", "x_train", "y_train"])
def test_an_exchange_before_a_resume_is_refused(
    changed: str, stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if changed == "teacher":
        write_teacher(1)
    else:
        write_data(changed)
    assert main(stopped) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"changed since the start of what is in run: the {'teacher;' if changed == 'teacher' else 'training i'}" in told
    )
    write_data()
    write_teacher(0)
    assert main(stopped) == 0
    names = ("student_sha256", "student_last_sha256", "fingerprints")
    before, after = (json.loads(Path(path).read_text()) for path in ("summary.json", "run/summary.json"))
    assert [before[name] for name in names] == [after[name] for name in names]


@pytest.mark.parametrize(
    ("changed", "cause"), [("teacher", "teacher"), ("y_train", "training images"), ("x_test", "test images")]
)
def test_validate_names_the_cause(
    changed: str, cause: str, stopped: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "summary.json", "--no-progress"]) == 0
    if changed == "teacher":
        write_teacher(1)
    else:
        write_data(changed)
    capsys.readouterr()
    assert main(["validate", "summary.json", "--no-progress"]) == 1
    told = capsys.readouterr().out
    assert f"the cause: changed since the recorded run: the {cause}" in told
    assert f"fingerprint of {cause}" in told


@pytest.mark.slow
def test_a_comparison_with_an_exchanged_teacher_is_told(stopped: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [*DATA, "--teacher", "teacher", "--student", "mlp6", "--epochs", "1", "--executor", "serial", *QUICK]
    options += ["--validation-images", "30", "--out", "comparison"]
    assert main(["compare", *options, "--seeds", "1"]) == 0
    assert "not all runs" not in capsys.readouterr().err
    write_teacher(1)
    assert main(["compare", *options, "--seeds", "2"]) == 0
    assert "not all runs of arrays/T=4 were made with the same teacher" in capsys.readouterr().err


def test_data_exchanged_under_a_teacher_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data()
    options = ["--dataset", "arrays", "--data-path", "data.npz", "--model", "mlp6", "--epochs", "30"]
    begun = ["teacher", *options, "--checkpoint-seconds", "0", *QUICK[:3], "--out", "t"]
    monkeypatch.setattr("experiments.commands.teacher.save_network", _stop)
    with pytest.raises(_Killed):
        main(begun)
    write_data("x_train")
    assert main(["teacher", "--resume", "--out", "t", "--no-progress"]) == 2
    assert "the training images" in capsys.readouterr().err


class _Killed(BaseException):
    """Ends a command as a kill would."""


def _stop(*_: object, **__: object) -> None:
    raise _Killed
