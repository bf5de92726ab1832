"""What agents learn within a run by default, and what they would not learn otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands.bench.learning import error_after_a_run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_default_agent_finds_the_best_temperatures_within_a_run(name: str) -> None:
    assert error_after_a_run(name, seed=0) <= 0.2


@pytest.mark.slow
def test_a_shared_reward_with_the_usual_discount_teaches_nothing() -> None:
    assert error_after_a_run("ppo", seed=0, calibrator="uniform", gamma=0.99) > 0.6


@pytest.mark.slow
def test_the_bench_writes_every_setting_of_the_agents_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["bench", "--learning", "--arms", "a2c", "--rounds", "1", "--out", str(tmp_path)]
    assert main(options) == 0
    found = json.loads((tmp_path / "bench.json").read_text())["learning"]
    assert found["constant"] == pytest.approx(0.80, abs=0.01)
    assert {name: len(one["errors"]) for name, one in found["agents"]["a2c"].items()} == {
        "default": 1,
        "shared_reward": 1,
        "shared_reward_discount_0.99": 1,
    }
    assert "a2c" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "pppo"], "unknown agent 'pppo'"),
        (["--arms", "ars"], "cannot learn within a run"),
        (["--data"], "choose one of them"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--learning", *options, "--out", str(tmp_path / "bench")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bench").exists()
