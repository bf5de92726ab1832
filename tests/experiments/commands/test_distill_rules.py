"""``rlkd distill --rule NAME``: every rule from end to end, and its options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from by_ppo import by_ppo

from agents.rules.create import RULES
from experiments.cli import main

QUICK = ("--no-progress", "--device", "cpu")


def distill(out: Path, *options: str, epochs: int = 2) -> int:
    return main(["distill", "--out", str(out), "--epochs", str(epochs), *QUICK, *by_ppo(*options)])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_makes_a_run(name: str, tmp_path: Path) -> None:
    assert distill(tmp_path / "run", "--rule", name) == 0
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (told["temperature_from"], told["rule_options"], told["diverged"]) == (name, {}, False)


@pytest.mark.slow
def test_options_reach_the_rule_and_the_summary(tmp_path: Path) -> None:
    students = []
    for options in (["tau", "2"], ["tau", "3", "gradient", "False"], []):
        out = tmp_path / str(len(students))
        given = ["--rule-options", *options] if options else []
        assert distill(out, "--rule", "lskd", *given, "--method-options", "kd_weight", "9") == 0
        students.append((out / "student_last.safetensors").read_bytes())
    assert students[0] == students[2] != students[1]
    told = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert told["rule_options"] == {"tau": 3, "gradient": False}


def test_relative_temperatures_and_the_fixed_one_are_understood(tmp_path: Path) -> None:
    for out, options in (("a", ["--fixed-temperature", "0.5s"]), ("b", ["--rule-options", "temperature", "0.5s"])):
        assert distill(tmp_path / out, "--rule", "fixed", *options) == 0
    contents = [(tmp_path / out / "student_last.safetensors").read_bytes() for out in "ab"]
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "lskk"], "unknown rule 'lskk'. Did you mean 'lskd'? Valid: anneal, cosine, ctkd"),
        (["--rule", "lskd", "--rule-options", "tua", "2"], "Did you mean 'tau'? Valid: correction, gradient, tau"),
        (["--rule", "ctkd", "--rule-options", "scope", "local"], "Valid: global, instance"),
        (["--rule", "random", "--rule-options", "low", "hot"], "'hot' is no temperature"),
        (["--rule-options", "tau", "2"], "--rule-options needs a --rule"),
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
