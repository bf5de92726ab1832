"""What a session tells of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.rules.create import RULES
from experiments.cli import parse
from experiments.config import DistillConfig
from experiments.session.prepare import prepare
from experiments.session.summary import summarize
from rlkd_env.training.captured.update import CapturedUpdate


@pytest.mark.parametrize("options", [("--rule", "lskd"), ("--agent", "ppo"), ("--agent", "ppo", "--around", "None")])
def test_settings_of_agents_are_shown_of_runs_with_one(options: tuple[str, ...]) -> None:
    config = parse(["distill", "--device", "cpu", *options])
    assert isinstance(config, DistillConfig)
    shown = prepare(config).settings.main
    assert {"dataset", "epochs", "seed", "agent", "rule", "temperature_from"} <= shown.keys()
    of_agent = {"around", "calibrator", "discount"}
    assert of_agent & shown.keys() == (of_agent if "--agent" in options else set())


@pytest.mark.parametrize("rule", list(RULES))
def test_the_updates_of_every_rule_that_carries_no_gradients_are_captured(
    rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule is the run's own, as one that learns along is, but only the latter keeps updates from being captured."""
    words = ["--epochs", "3", "--device", "cpu", "--no-tensorboard", "--no-progress", "--out", str(tmp_path / "run")]
    config = parse(["distill", "--rule", rule, *words])
    assert isinstance(config, DistillConfig)
    session = prepare(config)
    session.run.task.engine = replace(session.run.task.engine, captured=True)
    session.execute()
    update = session.run.update
    assert isinstance(update, CapturedUpdate)
    learns = any(parameter.requires_grad for parameter in session.run.policy.parameters())
    carries_gradients = session.run.policy.has_gradient
    assert (update.why_plain is None) == (not carries_gradients) == bool(update._captured)
    assert ("operation by operation" in capsys.readouterr().err) == learns
    assert summarize(session)["why_not_captured"] == update.why_plain
