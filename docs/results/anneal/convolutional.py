"""From which temperature to which should convolutional students anneal, and along which line?

``python docs/results/anneal/convolutional.py [TASK ...]`` appends to ``convolutional.csv`` a line for every rule and seed
that it lacks, of tasks of ``rlkd compare --preset all``. Students are measured on 10,000
training images that they have not seen, and no test image is used. With the folder of the data in RLKD_DATA and the teachers that the preset names, three
minutes for each run of CIFAR-100 on a CPU core.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agents.learned import load_policy
from agents.rules import create_rule
from experiments.compare.statistics import estimate_mean
from experiments.config.presets import PRESETS
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig

FILE = Path(__file__).parent / "convolutional.csv"
TASKS = ("cifar100", "cifar100-dkd")
DEFAULT = "linear 3s:0.35s"
RULES = (DEFAULT, "cosine 3s:0.35s", "linear 3s:0.2s", "linear 2s:0.2s", "cosine 2s:0.2s", "pretrained")
SEEDS = range(100, 103)


def policy(rule: str) -> Any:
    """Return what sets the temperatures."""
    if rule == "pretrained":
        return load_policy(rule)
    shape, _, ends = rule.partition(" ")
    first, _, last = ends.partition(":")
    return create_rule("anneal", {"first": first, "last": last, "shape": shape})


def rows() -> list[dict[str, str]]:
    """Return what was measured already."""
    if not FILE.is_file():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def over_default(task: str, rule: str) -> dict[str, object]:
    """Return mean and interval of a rule's gain over the default on a task, as shares."""
    found = {(row["seed"], row["rule"]): float(row["held_out_accuracy"]) for row in rows() if row["task"] == task}
    seeds = sorted(seed for seed, name in found if name == rule and (seed, DEFAULT) in found)
    difference = estimate_mean((np.array([found[seed, rule] - found[seed, DEFAULT] for seed in seeds])).tolist())
    return {"mean": difference.mean, "interval": difference.interval}


def main(tasks: list[str]) -> None:
    """Measure what is missing, of all tasks or those that are named."""
    settings = yaml.safe_load((PRESETS / "compare" / "all.yaml").read_text())["tasks"]
    options = set(RunConfig.option_names())
    if not rows():
        FILE.write_text("task,seed,rule,held_out_accuracy\n")
    known = {(row["task"], row["seed"], row["rule"]) for row in rows()}
    for task in tasks or TASKS:
        chosen = {name: value for name, value in settings[task].items() if name in options}
        config = RunConfig.from_keywords(
            {**chosen, "validation_images": 10_000}, device="cpu", reward_interval=2**30, features=("progress",)
        )
        run = build_run(config)
        for seed in SEEDS:
            for rule in RULES:
                if (task, str(seed), rule) in known:
                    continue
                run.reset(seed)
                run.advance(policy(rule))
                accuracy = float(run.task.evaluate(run.student, run.splits.validation).accuracy)
                with FILE.open("a") as file:
                    file.write(f"{task},{seed},{rule},{accuracy:.5f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
