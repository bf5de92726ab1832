"""``rlkd distill`` with parts that a user wrote outside the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.learned import load_policy
from experiments.cli import main

QUICK = ("--epochs", "4", "--warmup-epochs", "1", "--no-progress", "--device", "cpu", "--no-explore")


@pytest.mark.slow
def test_every_part_of_a_run_with_an_agent_can_come_from_outside(tmp_path: Path) -> None:
    out = tmp_path / "run"
    parts = ["--method", "outside_parts:HalfKD", "--method-options", "kd_weight", "0.4"]
    parts += ["--reward", "outside_parts:worst_probe_loss", "--calibrator", "outside_parts:Spread"]
    parts += ["--features", "teacher_performance", "outside_parts:teacher_peak", "--agent", "outside_parts:MyPPO"]
    parts += ["--around", "outside_parts:ByMargin", "--around-options", "start", "0.5s"]
    assert main(["distill", "--out", str(out), *QUICK, *parts]) == 0
    policy = load_policy(out)
    assert policy.features == ("teacher_performance", "outside_parts:teacher_peak")
    assert "outside_parts:ByMargin" in (out / "policy.json").read_text()


def test_a_rule_from_outside_sets_the_temperatures(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["distill", "--out", str(out), *QUICK, "--rule", "outside_parts:ByMargin"]) == 0
    assert json.loads((out / "config.json").read_text())


@pytest.mark.parametrize("option", ["method", "reward", "features", "rule", "agent"])
def test_what_is_no_part_is_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["distill", "--out", str(out), *QUICK, f"--{option}", "outside_parts:NOT_A_PART"]) == 2
    assert "outside_parts:NOT_A_PART': not a " in capsys.readouterr().err
    assert not out.exists()
