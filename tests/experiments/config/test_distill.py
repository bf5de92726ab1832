"""The folder of a run tells its options."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.cli import parse
from experiments.config import DistillConfig


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ({}, "digits-kd-anneal-seed0"),
        ({"device": "cpu", "progress": False, "workers": 2}, "digits-kd-anneal-seed0"),  # which make no other run
        ({"seed": 3, "agent": "ppo"}, "digits-kd-ppo-around-anneal-seed3"),
        ({"population": 8}, "digits-kd-anneal-population8-seed0"),
        ({"epochs": 20}, "digits-kd-anneal-epochs-20-seed0"),
        ({"student_alone": True}, "digits-kd-anneal-student_alone-seed0"),
    ],
)
def test_a_folder_tells_what_differs_from_the_usual_run(options: dict[str, Any], folder: str) -> None:
    assert str(DistillConfig.from_keywords(options).folder) == f"runs/{folder}"


def test_runs_of_other_options_have_other_folders() -> None:
    several = [{"epochs": 5, "learning_rate": 0.1}, {"epochs": 5, "learning_rate": 0.2}, {"teacher": "mine"}]
    folders = {str(DistillConfig.from_keywords(options).folder) for options in several}
    assert len(folders) == 3
    assert str(parse(["distill", "--preset", "paper"]).folder) == "runs/digits-kd-ppo-paper-seed0"  # type: ignore[attr-defined]
