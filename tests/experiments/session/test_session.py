"""What a session tells of itself."""

from __future__ import annotations

import pytest

from experiments.cli import parse
from experiments.config import DistillConfig
from experiments.session.prepare import prepare


@pytest.mark.parametrize("options", [("--rule", "lskd"), ("--agent", "ppo"), ("--agent", "ppo", "--around", "None")])
def test_settings_of_agents_are_shown_of_runs_with_one(options: tuple[str, ...]) -> None:
    config = parse(["distill", "--device", "cpu", *options])
    assert isinstance(config, DistillConfig)
    shown = prepare(config).settings.main
    assert {"dataset", "epochs", "seed", "agent", "rule", "temperature_from"} <= shown.keys()
    of_agent = {"around", "calibrator", "discount"}
    assert of_agent & shown.keys() == (of_agent if "--agent" in options else set())
