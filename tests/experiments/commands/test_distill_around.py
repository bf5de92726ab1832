"""``rlkd distill`` around a rule, with separate temperatures, and with equal gradients: from end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from by_ppo import by_ppo

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from experiments.cli import main
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.instances.actions import ResidualMap

QUICK = ("--no-progress", "--device", "cpu")
AROUND = ("--around", "lskd", "--around-options", "tau", "3", "--around-width", "0.7", "--warmup-epochs", "1")


def distill(out: Path, *options: str, epochs: int = 3) -> int:
    return main(["distill", "--out", str(out), "--epochs", str(epochs), *QUICK, *by_ppo(*options)])


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def student(out: Path) -> bytes:
    return (out / "student_last.safetensors").read_bytes()


@pytest.mark.slow
def test_the_warm_up_is_the_rules(tmp_path: Path) -> None:
    assert distill(tmp_path / "rule", "--rule", "lskd", "--rule-options", "tau", "3") == 0
    assert distill(tmp_path / "around", *AROUND[:4], "3", "--warmup-epochs", "3") == 0
    assert distill(tmp_path / "acting", *AROUND) == 0
    assert student(tmp_path / "rule") == student(tmp_path / "around") != student(tmp_path / "acting")
    assert summary(tmp_path / "around")["temperature_from"] == "ppo-around-lskd"


@pytest.mark.slow
def test_the_policy_around_a_rule_is_used_frozen_on_another_run(tmp_path: Path) -> None:
    assert distill(tmp_path / "agent", *AROUND) == 0
    policy = TemperaturePolicy.load(tmp_path / "agent")
    assert isinstance(policy.action_map, ResidualMap)
    assert policy.action_map.width == 0.7
    assert policy.action_map.around.description["rule"] == "lskd"
    assert policy.action_map.around.description["arguments"]["tau"] == 3
    assert distill(tmp_path / "frozen", "--policy", str(tmp_path / "agent"), "--seed", "5") == 0
    assert summary(tmp_path / "frozen")["temperature_from"] == "policy"


@pytest.mark.slow
def test_an_agent_starts_from_a_policy(tmp_path: Path) -> None:
    """From that of the package, from that of an earlier run, and so on: each is kept in the next one's file."""
    assert distill(tmp_path / "frozen", "--agent", "pretrained") == 0
    assert distill(tmp_path / "warming_up", "--around", "pretrained", "--warmup-epochs", "3") == 0
    assert student(tmp_path / "frozen") == student(tmp_path / "warming_up")
    assert distill(tmp_path / "first", "--around", "pretrained", "--warmup-epochs", "1") == 0
    assert summary(tmp_path / "first")["temperature_from"] == "ppo-around-pretrained"
    features = ("--features", "progress", "student_entropy")  # the agent's own, unlike those of the policy
    second = (*features, "--around", str(tmp_path / "first"), "--around-width", "0.2", "--warmup-epochs", "1")
    assert distill(tmp_path / "second", *second) == 0
    assert len({student(tmp_path / name) for name in ("frozen", "first", "second")}) == 3
    shutil.rmtree(tmp_path / "first")
    assert distill(tmp_path / "third", "--policy", str(tmp_path / "second")) == 0
    policy = load_policy(tmp_path / "second")
    assert policy.features == features[1:]
    assert policy.action_map.width == 0.2
    assert isinstance(policy.around.around, CoefficientPolicy)


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", list(CALIBRATORS))
@pytest.mark.parametrize("options", [("--temperatures", "separate"), AROUND, ("--equal-gradients",)], ids=str)
def test_every_calibrator_goes_with_them(options: tuple[str, ...], calibrator: str, tmp_path: Path) -> None:
    warmup = [] if options == AROUND else ["--warmup-epochs", "1"]
    assert distill(tmp_path / "run", *options, *warmup, "--calibrator", calibrator, epochs=2) == 0
    assert not summary(tmp_path / "run")["diverged"]


@pytest.mark.slow
def test_the_policy_of_separate_temperatures_makes_two(tmp_path: Path) -> None:
    options = ("--temperatures", "separate", "--warmup-epochs", "0", "--agent", "sac")
    assert distill(tmp_path / "run", *options, epochs=5) == 0
    policy = TemperaturePolicy.load(tmp_path / "run")
    chosen = policy.choose(torch.randn(6, 10), torch.randn(6, 10), torch.arange(6), progress=0.5)
    assert chosen.teacher.shape == chosen.student.shape == (6,)
    assert not torch.equal(chosen.teacher, chosen.student)
    assert distill(tmp_path / "frozen", "--policy", str(tmp_path / "run")) == 0


@pytest.mark.slow
def test_equal_gradients_go_with_rules_and_agents(tmp_path: Path) -> None:
    for who in (["--rule", "difficulty"], ["--warmup-epochs", "1"]):
        folder = tmp_path / who[0].strip("-")
        assert distill(folder / "plain", *who) == 0
        assert distill(folder / "equal", *who, "--equal-gradients") == 0
        assert student(folder / "plain") != student(folder / "equal")
        assert json.loads((folder / "equal" / "config.json").read_text())["equal_gradients"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--around", "lskk"], "unknown rule 'lskk'. Did you mean 'lskd'?"),
        (["--around", "ctkd"], "no agent can act around the rule 'ctkd'"),
        (["--around", "random"], "Valid: anneal, cosine, difficulty, dtkd, dts, entropy, fixed"),
        (["--around", "lskd", "--around-options", "tua", "2"], "Did you mean 'tau'?"),
        (["--around", "lskd", "--around-width", "0"], "around width must be positive"),
        (["--around", "lskd", "--rule", "lskd"], "--around is for an agent"),
        (["--around", "lskd", "--policy", "x"], "--around is for an agent"),
        (["--around-options", "tau", "2"], "unknown option of rule 'anneal' 'tau'"),
        (["--around", "pretrained", "--around-options", "tau", "2"], "--around-options are a rule's, and pretrained"),
        (["--around", "pretraned"], "unknown rule 'pretraned'"),
        (["--around", "runs/nowhere"], "runs/nowhere/policy.json does not exist"),
        (["--around", str(Path(__file__).parent)], "policy.json does not exist"),
        (["--temperatures", "two"], "separate"),
    ],
)
def test_wrong_options_end_with_exit_code_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
