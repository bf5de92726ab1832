"""Runs that end before their time, because their students get no better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import main
from experiments.config import DistillConfig
from experiments.session.prepare import prepare

QUICK: dict[str, Any] = {"epochs": 12, "device": "cpu", "progress": False, "tensorboard": False}
STILL = {"learning_rate": 1e-9, "student": "mlp6"}
"""A student that stays as it is: the first epoch's is the best of all."""


def summary_of(folder: Path, *options: str) -> dict[str, Any]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in {"epochs": 12, "device": "cpu", **STILL}.items()]
    switched_off = ["--no-progress", "--no-tensorboard"]
    assert main(["distill", *words, *switched_off, "--out", str(folder), *options]) == 0
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return told


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--population", "2", "--run-mode", "stacked"],
        ["--agent", "a2c", "--warmup-epochs", "1", "--calibrator", "uniform", "--agent-options", "n_steps", "4"],
    ],
)
def test_a_run_stops_after_so_many_epochs_without_a_better_student(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary_of(tmp_path / "run", "--patience", "3", *options)
    assert found["stopped_early"]
    assert found["student_epoch"] == 1
    assert found["epochs"] == 4
    assert "stopped after epoch 4: the last 3 brought no better student" in capsys.readouterr().out
    assert found["settings"]["patience"] == 3
    assert main(["distill", "--resume", "--out", str(tmp_path / "run"), "--no-progress"]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_a_run_that_gets_better_is_made_to_its_end(tmp_path: Path) -> None:
    config = DistillConfig.from_keywords(**QUICK, out=str(tmp_path), patience=11)
    session = prepare(config, writes=False)
    session.execute()
    assert session.records.steps == session.run.total_steps
    assert not session.records.stopped_early
