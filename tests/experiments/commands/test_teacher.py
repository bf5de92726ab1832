"""``rlkd teacher`` trains, saves and describes a teacher."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.cli import main, parse
from experiments.commands.teacher import distill_command
from experiments.config import DistillConfig
from rlkd_env.data import DataConfig, create_source
from rlkd_env.tasks import Classification
from rlkd_env.training.teacher import load_teacher


@pytest.mark.slow
def test_a_teacher_is_trained_saved_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "teacher"
    arguments = ["teacher", "--model", "mlp32", "--epochs", "15", "--device", "cpu", "--out", str(out)]
    assert main(arguments) == 0
    assert f"next: rlkd distill --teacher {out}" in capsys.readouterr().out
    card = json.loads((out / "teacher.json").read_text())
    assert card["recipe"]["model"] == "mlp32"
    assert card["test_accuracy"] > 0.75
    run = ["distill", "--teacher", str(out), "--rule", "fixed", "--epochs", "2", "--no-progress", "--device", "cpu"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told["teacher_test_accuracy"] == pytest.approx(card["test_accuracy"])
    capsys.readouterr()
    assert main(arguments) == 2
    assert "holds another teacher: add --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--epochs", "1"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "mlp33"], "unknown network"),
        (["--dataset", "digit"], "Did you mean 'digits'"),
        (["--epochs", "0"], "at least 1"),
        (["--batch-size", "801"], "larger than the training set of 800"),
        (["--dataset", "digits_detection", "--random-erase", "0.2"], "are not for digits_detection"),
        (["--dataset", "digits_detection", "--mixup-alpha", "0.2"], "mixup and CutMix are for classification"),
    ],
)
def test_bad_input_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teacher", "--out", str(tmp_path / "t"), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_the_average_of_the_weights_is_what_is_saved_and_evaluated(tmp_path: Path) -> None:
    options = ["--model", "mlp16", "--epochs", "4", "--device", "cpu", "--no-progress", "--learning-rate", "0.01"]
    saved = []
    for name, more in (("plain", []), ("averaged", ["--ema-decay", "0.98"])):
        assert main(["teacher", *options, *more, "--out", str(tmp_path / name)]) == 0
        saved.append(load_teacher(tmp_path / name, (splits := create_source(DataConfig()).splits())))
        card = json.loads((tmp_path / name / "teacher.json").read_text())
        accuracy = Classification().evaluate(saved[-1], splits.validation).accuracy
        assert card["validation_accuracy"] == pytest.approx(float(accuracy))
        assert card["recipe"]["ema_decay"] == (0.98 if more else None)
    assert not torch.equal(saved[0][1].weight, saved[1][1].weight)


@pytest.mark.slow
def test_a_killed_training_is_resumed_to_the_same_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "mlp16", "--epochs", "60", "--device", "cpu", "--checkpoint-seconds", "0", "--no-progress"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["teacher", *options, "--out", str(whole)]) == 0
    command = [sys.executable, "-m", "experiments", "teacher", *options, "--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint" / "checkpoint-previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "teacher.safetensors").exists()
    capsys.readouterr()
    assert main(["teacher", *options, "--out", str(killed)]) == 2
    assert "--resume to go on with it" in capsys.readouterr().err
    assert main(["teacher", "--resume", "--out", str(killed), "--epochs", "61"]) == 2
    assert "was started with 60" in capsys.readouterr().err
    latest = killed / "checkpoint" / "checkpoint.pt"
    good = latest.read_bytes() if latest.exists() else None  # killed between two files, there is the older one alone
    latest.write_bytes(b"half of a file")
    assert main(["teacher", "--resume", "--out", str(killed), "--no-progress"]) == 2
    assert re.search(r"go on from the older .*checkpoint-previous\.pt \(epoch \d+\)", capsys.readouterr().err)
    latest.unlink()
    if good is not None:
        latest.write_bytes(good)
    assert main(["teacher", "--resume", "--out", str(killed), "--no-progress"]) == 0
    assert (killed / "teacher.safetensors").read_bytes() == (whole / "teacher.safetensors").read_bytes()
    cards = [json.loads((folder / "teacher.json").read_text()) for folder in (whole, killed)]
    assert cards[0]["history"] == cards[1]["history"]
    assert len(cards[0]["history"]) == 60
    assert cards[0]["test_accuracy"] == cards[1]["test_accuracy"]
    capsys.readouterr()
    assert main(["teacher", "--resume", "--out", str(killed)]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_a_diverging_training_is_told_and_leaves_no_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "mlp16", "--optimizer", "sgd", "--learning-rate", "1e30", "--device", "cpu", "--no-progress"]
    assert main(["teacher", *options, "--out", str(tmp_path / "t")]) == 2
    assert "diverged in epoch 1" in capsys.readouterr().err
    assert not (tmp_path / "t" / "teacher.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_precision_and_optimiser_learns(precision: str, optimizer: str, tmp_path: Path) -> None:
    options = [
        "--model",
        "mlp32",
        "--epochs",
        "15",
        "--optimizer",
        optimizer,
        "--precision",
        precision,
        "--device",
        "cpu",
    ]
    rate = ["--learning-rate", "0.05" if optimizer == "sgd" else "0.005"]
    assert main(["teacher", *options, *rate, "--schedule", "step", "--no-progress", "--out", str(tmp_path)]) == 0
    card = json.loads((tmp_path / "teacher.json").read_text())
    assert card["test_accuracy"] > 0.85
    assert card["recipe"]["precision"] == precision


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ([], "rlkd distill"),
        (["--preset", "bccd", "--data-path", "my cells"], "rlkd distill --preset bccd --data-path 'my cells'"),
        (
            ["--dataset", "image_folder", "--data-path", "p", "--image-size", "64", "--normalization", "0.5", "0.5"],
            "rlkd distill --dataset image_folder --data-path p --image-size 64 --normalization 0.5 0.5",
        ),
        (
            ["--dataset", "coco", "--data-path", "p", "--annotations", "a.json", "b.json", "--workers", "2"],
            "rlkd distill --dataset coco --data-path p --annotations a.json b.json",
        ),
        (["--preset", "fashion_mnist/overtrained"], "rlkd distill --dataset fashion_mnist"),
    ],
)
def test_the_command_that_is_printed_prepares_the_same_data(options: list[str], command: str) -> None:
    config = parse(["teacher", "--model", "mlp16", "--out", "t", *options])
    told = shlex.join(distill_command(config))
    assert told.startswith(f"{command} ")
    assert told.endswith("--teacher t")
    again = parse(shlex.split(told)[1:])
    kept = {**again.run.data.as_keywords(), "workers": config.data.workers}
    assert kept == config.data.as_keywords()


def test_teachers_of_detection_have_batches_that_suit_them() -> None:
    for dataset in ("coco", "voc", "yolo", "digits_detection"):
        assert parse(["teacher", "--dataset", dataset, "--model", "fasterrcnn/resnet8"]).training.batch_size == 8
        recipe = parse(["distill", "--dataset", dataset]).run.recipe
        assert (recipe.batch_size, recipe.optimizer, recipe.learning_rate) == (8, "adam", 0.003)
    assert parse(["distill", "--dataset", "coco", "--batch-size", "4"]).run.recipe.batch_size == 4
    assert parse(["distill", "--dataset", "arrays"]).run.recipe == DistillConfig().run.recipe
    coco = parse(["teacher", "--preset", "coco", "--data-path", "p"])
    assert (
        shlex.join(distill_command(coco))
        == "rlkd distill --preset coco --data-path p --teacher teachers/coco-fasterrcnn-resnet50-seed0"
    )
