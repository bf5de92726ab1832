"""``rlkd credit`` measures calibrators against the truth."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
from matplotlib.image import imread

from experiments.cli import main
from experiments.session.folder import locked
from rlkd_env.runs.reward import REWARDS


@pytest.mark.slow
def test_credit_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "credit"
    options = ["--student", "mlp8", "--epochs", "60", "--runs", "1", "--points", "6", "--device", "cpu"]
    assert main(["credit", "--out", str(out), *options]) == 0
    told = capsys.readouterr().out
    assert "counterfactual" in told
    run = "--student mlp8 --epochs 60 --device cpu"
    assert told.splitlines()[-1] == f"next: rlkd distill {run} --agent ppo --calibrator gradient"
    quality = json.loads((out / "credit.json").read_text())
    assert set(quality) == {"uniform", "return_decomposition", "last_layer", "gradient", "counterfactual"}
    assert quality["uniform"]["pearson"] is None  # credits that do not vary have no correlation
    assert quality["gradient"]["pearson"] >= 0.9
    assert quality["gradient"]["spearman"] >= 0.8
    assert quality["last_layer"]["pearson"] >= 0.7
    assert -0.5 < quality["return_decomposition"]["pearson"] < 0.5
    for figures in quality.values():
        assert 0.2 < figures["cost_ratio_min"] <= figures["cost_ratio"] <= figures["cost_ratio_max"]
    assert imread(out / "credit.png").shape[1] > 1000
    assert sorted(path.name for path in out.iterdir()) == [".lock", "credit.json", "credit.png"]
    assert main(["credit", "--out", str(out), *options]) == 2
    assert "holds another measurement" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["credit"], ["credit", "--rewards"], ["bench"]])
def test_two_measurements_do_not_share_a_folder(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path):
        assert main([*command, "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "another rlkd works in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
def test_credit_can_be_measured_of_two_temperatures_an_instance(tmp_path: Path) -> None:
    out = tmp_path / "credit"
    options = ["--student", "mlp8", "--epochs", "20", "--runs", "1", "--points", "3", "--device", "cpu"]
    assert main(["credit", "--out", str(out), *options, "--temperatures", "separate"]) == 0
    quality = json.loads((out / "credit.json").read_text())
    assert quality["gradient"]["pearson"] >= 0.9


@pytest.mark.slow
def test_rewards_are_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rewards"
    options = ["--rewards", "--student", "mlp12", "--epochs", "10", "--runs", "2", "--points", "3", "--device", "cpu"]
    assert main(["credit", "--out", str(out), *options, "--batch-size", "16"]) == 0  # the probe has four parts
    told = capsys.readouterr().out
    assert "probe_turns" in told
    expected = (
        "next: rlkd distill --student mlp12 --epochs 10 --batch-size 16 --device cpu --agent ppo --reward probe_loss"
    )
    assert sorted(told.splitlines()[-1].split()) == sorted(expected.split())
    measured = json.loads((out / "rewards.json").read_text())
    rewards = measured["rewards"]
    assert set(rewards) == {*REWARDS, "same_batch", "probe_loss, every 8th update"}
    assert measured["held_out_images"] == 650  # Digits' reserve and validation images
    assert rewards["probe_loss"]["pearson"] > 0.8
    assert rewards["train_progress"]["pearson"] < rewards["probe_turns"]["pearson"] < rewards["probe_loss"]["pearson"]
    assert rewards["probe_loss"]["between_temperatures"] > 0.3
    assert all(0.3 < figures["cost_ratio"] < 10 for name, figures in rewards.items() if name != "same_batch")
    with (out / "rewards.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * measured["updates"] == 2 * 180
    columns = [[float(row[name]) for row in rows if row["run"] == "1"] for name in ("probe_turns", "held_out")]
    others = [[float(row[name]) for row in rows if row["run"] == "0"] for name in ("probe_turns", "held_out")]
    mean = (statistics.correlation(*columns) + statistics.correlation(*others)) / 2
    assert rewards["probe_turns"]["pearson"] == pytest.approx(mean, abs=1e-3)
    assert main(["credit", "--out", str(out), *options]) == 2
    assert "holds another measurement" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--points", "0"], "at least 1"), (["--student", "mlp9"], "unknown network"), (["--poin", "3"], "--poin")],
)
def test_bad_input_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["credit", "--out", str(tmp_path / "c"), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
