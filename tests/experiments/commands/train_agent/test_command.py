"""``rlkd train-agent`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from small_training import train

from experiments.cli import main
from experiments.commands.train_agent import command as train_agent


@pytest.fixture
def tiny_set(tmp_path: Path) -> Path:
    """Two kinds of runs to train on, of two epochs, and one to be held against."""
    entries = {
        "common": {"dataset": "digits", "epochs": 2, "learning_rate": 0.2},
        "train": [
            {"name": "few", "train_images": 128, "seeds": [100, 200]},
            {
                "name": "small",
                "student": "mlp6",
                "seeds": [100, 200],
                "teacher_recipe": {"model": "mlp16", "epochs": 2},
            },
        ],
        "held_out": [{"name": "other", "seeds": [0, 3]}],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["cma", "ppo"])
def test_a_trained_policy_is_compared_and_can_be_used(
    agent: str, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    decisions = ["--decisions", "4"] if agent == "ppo" else []
    assert train(tiny_set, out, "--agent", agent, "--evaluation-interval", "1", *decisions) == 0
    summary = json.loads((out / "summary.json").read_text())
    (row,) = summary["held_out"]
    assert (summary["updates"], row["instance"], row["seeds"]) == (2, "other", [0, 3])
    assert row["best_fixed"] == max(row["fixed"], key=row["fixed"].get)
    assert list(row["fixed"])[:2] == ["2", "4"]
    difference = row["to_best_fixed"]
    assert difference["mean"] == pytest.approx(row["policy"] - row["fixed"][row["best_fixed"]])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert row["to_anneal"]["mean"] == pytest.approx(row["policy"] - row["anneal"])
    best = row["fixed"][row["best_fixed"]]
    assert row["anneal_to_best_fixed"]["mean"] == pytest.approx(row["anneal"] - best)
    assert list(out.glob("events.out.tfevents.*"))
    assert "next: rlkd distill --policy" in capsys.readouterr().out
    used = ["--policy", str(out), "--epochs", "1", "--no-progress", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["distill", *used]) == 0


def test_the_policy_of_the_package_can_be_used(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["distill", "--policy", "pretrained", "--epochs", "1", "--no-progress", "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["temperature_from"] == "pretrained"


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["cma", "ppo"])
def test_a_training_that_was_killed_goes_on_to_the_same_policy(
    agent: str, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--agent", agent, "--checkpoint-seconds", "0", *(["--decisions", "4"] if agent == "ppo" else []))
    assert train(tiny_set, tmp_path / "whole", *options, updates=3) == 0
    save = train_agent.save_checkpoint

    def save_and_die(folder: Path, state: dict[str, object]) -> None:
        save(folder, state)
        if state["run"] == {"step_count": 2}:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_agent, "save_checkpoint", save_and_die)
    assert train(tiny_set, tmp_path / "broken", *options, updates=3) == 130
    monkeypatch.undo()
    assert main(["train-agent", "--resume", "--out", str(tmp_path / "broken"), "--no-progress"]) == 0
    weights = [(tmp_path / name / "policy.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    assert main(["train-agent", "--resume", "--out", str(tmp_path / "broken"), "--no-progress"]) == 0


@pytest.mark.slow
def test_an_agent_that_diverges_is_told_in_a_line(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--agent", "ppo", "--decisions", "4", "--agent-options", "learning_rate", "1e30")
    assert train(tiny_set, tmp_path / "out", *options, updates=3) == 1
    assert "rlkd: the agent diverged in update 1 (" in capsys.readouterr().err
    assert not (tmp_path / "out" / "policy.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "pppo", "--decisions", "4"], "unknown agent 'pppo'. Did you mean 'ppo'?"),
        (["--instances", "digits301"], "unknown instance set 'digits301'. Did you mean 'digits300'?"),
        (["--coefficient-features", "mood"], "unknown feature 'mood'"),
        (["--population", "3"], "at least 4"),
        (["--minutes", "0"], "minutes must be positive"),
        (["--updates", "0"], "at least 1 update"),
        (["--fitness", "luck"], "unknown fitness 'luck'"),
        (["--sweep", "hot"], "'hot' is no temperature"),
        (["--agent", "ppo", "--decisions", "99"], "has room for 1 to"),
    ],
)
def test_wrong_options_end_with_exit_code_2(
    options: list[str], message: str, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_set, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
