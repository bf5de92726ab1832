"""``rlkd teacher`` trains, saves and describes a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main


def test_a_teacher_is_trained_saved_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "teacher"
    arguments = ["teacher", "--model", "mlp32", "--epochs", "15", "--device", "cpu", "--out", str(out)]
    assert main(arguments) == 0
    assert f"rlkd distill --dataset digits --teacher {out}" in capsys.readouterr().out
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
    ],
)
def test_bad_input_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teacher", "--out", str(tmp_path / "t"), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
