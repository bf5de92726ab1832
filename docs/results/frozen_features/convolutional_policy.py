"""What does the package's policy, which fully connected students taught, add to the schedule for convolutional ones?

``convolutional_policy.csv`` gets the test accuracy in percent of both; rows that it has already are kept. With the
folder of the data in RLKD_DATA, and the teachers that ``rlkd compare --preset all`` names, an hour on a CPU core:

    python docs/results/frozen_features/convolutional_policy.py
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import yaml

from agents.learned import load_policy
from agents.rules import create_rule
from experiments.compare.statistics import estimate_mean
from experiments.config.presets import PRESETS
from rlkd_env.data import create_source
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig

FILE = Path(__file__).parent / "convolutional_policy.csv"
ARMS = {"anneal": lambda: create_rule("anneal"), "pretrained": lambda: load_policy("pretrained")}
TASKS = ("cifar100", "cifar100-dkd", "fashion", "fashion-overtrained")
SEEDS = range(5)


def rows() -> list[dict[str, str]]:
    """Return what was measured already."""
    if not FILE.is_file():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def of_task(task: str) -> dict[str, object]:
    """Return mean and interval of the policy's gain over the schedule on a task, as shares."""
    found = {(row["seed"], row["arm"]): float(row["test_accuracy"]) / 100.0 for row in rows() if row["task"] == task}
    one, other = (np.array([found[str(seed), arm] for seed in SEEDS]) for arm in ("pretrained", "anneal"))
    difference = estimate_mean((one - other).tolist())
    return {"mean": difference.mean, "interval": difference.interval}


def main(tasks: list[str]) -> None:
    """Measure what is missing, of all tasks or those that are named."""
    known = {(row["task"], row["seed"], row["arm"]) for row in rows()}
    settings = yaml.safe_load((PRESETS / "compare" / "all.yaml").read_text())["tasks"]
    options = set(RunConfig.option_names())
    if not known:
        FILE.write_text("task,seed,arm,test_accuracy\n")
    for task in tasks or TASKS:
        chosen = {name: value for name, value in settings[task].items() if name in options}
        config = RunConfig.from_keywords(chosen, device="cpu", reward_interval=2**30, features=("progress",))
        run, test = build_run(config), create_source(config.data).test_set()
        assert test is not None
        for seed in SEEDS:
            for arm, create in ARMS.items():
                if (task, str(seed), arm) in known:
                    continue
                run.reset(seed)
                run.advance(create())
                accuracy = 100.0 * float(run.task.evaluate(run.student, test).accuracy)
                with FILE.open("a") as file:
                    file.write(f"{task},{seed},{arm},{accuracy:.2f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
