"""What is told when something goes wrong: the cause, the file, and what is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.cli import main
from rlkd_env.data import DataConfig, create_source
from rlkd_env.models import create_model
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.training.recipe import TeacherRecipe
from rlkd_env.training.teacher import cached_teacher

QUICK = ["--student", "mlp8", "--device", "cpu", "--no-progress", "--no-tensorboard"]
RULE = ["distill", "--rule", "fixed", "--epochs", "2", *QUICK]
Copy = Callable[[str], Path]


def spoiled(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a student whose first weights are no numbers."""
    network = create_model("mlp8", num_classes, image_shape)
    nn.init.constant_(next(network.parameters()), float("nan"))
    return network


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--fixed-temperature", "1e30"], "The mean temperature was 1e+30: choose temperatures between 0.5 and 20"),
        (["--student", f"{__name__}:spoiled"], "look at the student's first weights and at the images"),
        (["--learning-rate", "1e30"], "Try a lower --learning-rate"),
    ],
)
def test_advice_after_a_divergence_names_its_cause(
    options: list[str], advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RULE, *options, "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert advice in told
    assert ("learning-rate" in told) == ("--learning-rate" in options)


def test_a_teacher_in_a_cache_that_cannot_be_written_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLKD_CACHE", str(tmp_path))
    splits, recipe = create_source(DataConfig()).splits(), TeacherRecipe(model="mlp6", epochs=1)
    first = cached_teacher(splits, recipe)
    (file,) = tmp_path.glob("*.safetensors")
    file.with_suffix(".lock").unlink()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    again = cached_teacher(splits, recipe, on_epoch=lambda *_: pytest.fail("it is trained anew"))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_report_does_not_follow_links(copy: Copy, tmp_path: Path) -> None:
    run, elsewhere = copy("run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("mine.png", "report.html"):
        (elsewhere / name).write_text("mine")
    (run / "report").symlink_to(elsewhere)
    (run / "report.html").symlink_to(elsewhere / "report.html")
    assert main(["report", str(run)]) == 0
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"mine.png": "mine", "report.html": "mine"}
    assert not (run / "report").is_symlink()
    assert list((run / "report").glob("*.png"))


def test_a_torchscript_program_is_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "network.pth"
    torch.jit.trace(create_model("mlp8", 10, (1, 8, 8)), torch.rand(2, 1, 8, 8)).save(str(file))
    assert main([*RULE, "--teacher", str(file), "--teacher-model", "mlp8", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert f"{file} is a TorchScript program: save the network's state_dict() instead" in told
    assert "weights_only" not in told


def test_a_full_disk_is_told_with_the_file_and_what_is_kept(
    copy: Copy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy("stopped")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert main(["distill", "--resume", "--no-progress", "--out", str(run)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"{run}/" in told
    assert "cannot be written, and is as it was: No space left on device" in told
    assert f"the last checkpoint is in {run}: go on with --resume" in told
    assert not list(run.rglob(".*.????????"))
    monkeypatch.undo()
    assert main(["distill", "--resume", "--no-progress", "--out", str(run)]) == 0


@pytest.mark.parametrize(("asked", "is_told"), [(512, True), (150, False), (None, False)])
def test_a_probe_that_is_cut_is_told_whatever_was_asked_for(
    asked: int | None, is_told: bool, digits_teacher: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_run(RunConfig.from_keywords(device="cpu", probe_size=asked), teacher=digits_teacher)
    assert len(run.probe) == 150
    assert ("rewards are measured on 150 images" in capsys.readouterr().err) == is_told
