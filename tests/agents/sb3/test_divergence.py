"""Agents whose networks hold no usable numbers are noticed, and agents leave nothing in the temporary directory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal
from toy_envs import BestActions

from agents.sb3.divergence import check_agent, noticing_divergence
from agents.sb3.make import make_agent
from rlkd_env.errors import AgentDiverged


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_parameters_that_are_no_usable_numbers_are_noticed(value: float) -> None:
    agent = make_agent("ppo", BestActions(), seed=0)
    check_agent(agent)
    with torch.no_grad():
        next(agent.policy.parameters()).view(-1)[0] = value
    with pytest.raises(AgentDiverged, match="its largest parameter is"):
        check_agent(agent)


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac", "td3"])
def test_an_agent_that_diverges_while_it_learns_is_one_error(name: str) -> None:
    agent = make_agent(name, BestActions(), seed=0, learning_rate=1e30)
    with pytest.raises(AgentDiverged), noticing_divergence(agent):
        agent.learn(100 * 16)


def test_distributions_check_nothing_while_an_agent_learns() -> None:
    agent, no_number = make_agent("ppo", BestActions(), seed=0), torch.tensor(float("nan"))
    with noticing_divergence(agent):
        Normal(no_number, 1.0)
    with pytest.raises(ValueError, match="Expected parameter loc"):
        Normal(no_number, 1.0)


def test_other_errors_pass() -> None:
    agent = make_agent("ppo", BestActions(), seed=0)
    with pytest.raises(ValueError, match=r"^another$"), noticing_divergence(agent):
        raise ValueError("another")


def test_an_agent_leaves_no_folder_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_agent("ppo", BestActions(), seed=0, n_steps=4).learn(64)
    assert list(tmp_path.iterdir()) == []
