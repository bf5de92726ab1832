"""What the committed comparison has found on a run's task, as a yardstick for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

EXPECTED_FILE = "expected.json"
"""Written by ``python docs/tables.py`` from ``docs/results/all``."""
IDENTITY = (
    "dataset",
    "teacher",
    "teacher_model",
    "student",
    "method",
    "train_images",
    "validation_images",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "schedule",
    "augmentation",
)
"""The options that make a task."""


@dataclass(frozen=True)
class Expected:
    """A task's name, its seeds, and by arm the mean test accuracy, or AP, with its 95 % interval, in percent."""

    task: str
    seeds: int
    arms: dict[str, tuple[float, float, float]]


def expected_of(config: Mapping[str, Any]) -> Expected | None:
    """Return what is known of the task of a run with these options; None for any other task."""
    own = {name: config.get(name) for name in IDENTITY}
    content = json.loads(files("experiments.report.run").joinpath(EXPECTED_FILE).read_text())
    for task in content:
        if task["settings"] == own:
            return Expected(task["task"], task["seeds"], {arm: tuple(found) for arm, found in task["arms"].items()})
    return None
