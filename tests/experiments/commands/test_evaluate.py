"""``rlkd evaluate`` measures what ``rlkd distill`` has kept; which student that is, and what a dry run tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from rlkd_env.data import DataConfig, create_source

QUICK = ("--epochs", "20", "--no-progress", "--no-tensorboard", "--device", "cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on Digits whose best epoch is not the last one."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["distill", *QUICK, "--out", str(out)]) == 0
    told = json.loads((out / "summary.json").read_text())
    assert told["student_best_epoch"] < told["student_last_epoch"] == 20
    return out


def told_by(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["evaluate", str(run), *options, "--device", "cpu"]) == 0
    return capsys.readouterr().out


def test_the_accuracy_is_that_of_the_summary(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    told = told_by(finished, capsys)
    assert f"accuracy {summary['student_test_accuracy']:.2%} on 697 test images" in told
    assert told.splitlines()[-1] == f"next: rlkd export {finished}"
    told = told_by(finished, capsys, "--part", "validation")
    assert f"accuracy {summary['student_val_accuracy']:.2%} on 150 validation images" in told


def test_other_images_are_normalised_as_the_runs_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = create_source(DataConfig())
    test, train = source.test_set(), source.splits().train
    assert test is not None
    arrays = {f"x_{part}": images.pixels.numpy() for part, images in (("test", test), ("train", train))}  # type: ignore[attr-defined]
    labels = {f"y_{part}": images.labels.numpy() for part, images in (("test", test), ("train", train))}
    np.savez(tmp_path / "same.npz", **arrays, **labels)
    assert told_by(finished, capsys, "--data", str(tmp_path / "same.npz")) == told_by(finished, capsys)


def test_a_run_on_data_without_a_path_takes_no_other_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), "--data", str(tmp_path), "--device", "cpu"]) == 2
    assert "has no data path: other data must be an .npz file" in capsys.readouterr().err


def test_what_cannot_be_measured_is_told(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished), "--data", str(tmp_path / "none.npz")]) == 2
    assert "none.npz does not exist" in capsys.readouterr().err
    rng = np.random.default_rng(0)
    large = {"x_train": rng.random((40, 12, 12), dtype=np.float32), "y_train": np.arange(40) % 4}
    np.savez(tmp_path / "large.npz", **large)
    assert main(["evaluate", str(finished), "--data", str(tmp_path / "large.npz"), "--part", "train"]) == 2
    assert "the student takes images (1, 8, 8), but these are (1, 12, 12)" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--data", str(tmp_path / "large.npz")]) == 2
    assert "have no test images" in capsys.readouterr().err


def test_the_last_student_is_kept_unless_the_best_is_asked_for(finished: Path, tmp_path: Path) -> None:
    assert (finished / "student.safetensors").read_bytes() == (finished / "student_last.safetensors").read_bytes()
    best = (finished / "student_best.safetensors").read_bytes()
    assert (finished / "student.safetensors").read_bytes() != best
    assert main(["distill", *QUICK, "--keep-epoch", "best", "--out", str(tmp_path / "best")]) == 0
    assert (tmp_path / "best" / "student.safetensors").read_bytes() == best
    last, kept = (json.loads((folder / "summary.json").read_text()) for folder in (finished, tmp_path / "best"))
    assert (last["kept"], kept["kept"]) == ("last", "best")
    assert kept["student_test_accuracy"] == last["student_best_test_accuracy"]
    assert kept["config_hash"] == last["config_hash"]  # it is the same run


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "--dry-run", "--device", "cpu", "--epochs", "5"]) == 0
    told = capsys.readouterr().out
    assert "train 300, probe 150, validation 150" in told
    assert "20 of 64 images (5 epochs)" in told
    assert "runs/digits-kd-anneal-epochs-5-seed0" in told
    assert list(tmp_path.iterdir()) == []
