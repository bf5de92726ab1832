"""What a run's page says that its task usually gives is what the committed comparison holds."""

from __future__ import annotations

import runpy
from pathlib import Path

from experiments.config import DistillConfig
from experiments.report.run.expected import expected_of

TABLES = Path(__file__).parents[4] / "docs" / "tables.py"


def test_the_file_is_that_of_the_committed_comparison() -> None:
    tables = runpy.run_path(str(TABLES))
    assert tables["EXPECTED"].read_text() == tables["expected_text"](), "python docs/tables.py writes it anew"


def test_a_task_is_known_by_its_options() -> None:
    usual = expected_of(DistillConfig().settings())
    assert usual is not None
    assert usual.task == "digits"
    mean, low, high = usual.arms["annealing (the default)"]
    assert low < mean < high
    assert usual.arms["student alone"][0] < mean
    small = expected_of(DistillConfig.from_keywords(train_images=100, seed=7, agent="ppo").settings())
    assert small is not None
    assert small.task == "digits-100"  # who sets the temperatures, and the seed, make no other task
    assert expected_of(DistillConfig.from_keywords(train_images=101).settings()) is None
