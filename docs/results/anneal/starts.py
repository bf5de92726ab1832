"""From which temperature should short runs anneal, on tasks of the instance set ``many``?

``python docs/results/anneal/starts.py TASK@EPOCHS ...``, or without arguments for all of :data:`TASKS`, appends to
``starts.csv`` a line for every rule and seed of the tasks that it lacks. Students are measured on images that they have
not seen and that are none of the test images, as in ``sweep.py``. With the folder of the data in RLKD_DATA, ten minutes
on a CPU core.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from agents.rules.base import Rule
from agents.rules.by_run import PolicyByRun
from agents.rules.schedules import Anneal
from agents.rules.simple import FixedTemperature
from experiments.commands.train_agent.instances import read_instance_set
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "starts.csv"
TASKS = (
    "cifar100-stage1@5",
    "cifar100-stage1@10",
    "cifar100-stage2-large-student@4",
    "cifar50-fresh-teacher@5",
    "cifar50-other-classes-few-updates@3",
    "cifar20@3",
    "cifar20@8",
    "digits@10",
    "digits-100-images@20",
    "fashion-2000-images@2",
    "fashion-2000-images@6",
)
"""The tasks, and how many epochs they have here."""
FIXED = (1, 1.5, 2, 3, 4, 6, 8)
FIRST, LAST = (0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4), (0.25, 0.35, 0.5)
FIRST_SEED, AT_ONCE = 60_000, 96


def rules() -> dict[str, Rule]:
    """Return the rules by name; the start of none depends on the run's length."""
    fixed: dict[str, Rule] = {f"T={temperature}": FixedTemperature(float(temperature)) for temperature in FIXED}
    ends = [(first, last) for first in FIRST for last in LAST if first >= last]
    return fixed | {f"{first}s to {last}s": Anneal(f"{first}s", f"{last}s", own_spread=0.0) for first, last in ends}


def main(tasks: Sequence[str]) -> None:
    """Measure the tasks that are missing."""
    if not FILE.exists():
        FILE.write_text("task,updates_per_class,rule,seed,held_out_accuracy\n")
    known = {row["task"] for row in _rows()}
    instances = {one.name: one for part in (read_instance_set("many"),) for one in (*part.train, *part.held_out)}
    for task in (task for task in tasks if task not in known):
        name, _, epochs = task.partition("@")
        settings = {"device": "cpu", "reward_interval": 2**30, "features": ("progress",)}
        run = instances[name].build(probe_images=7500, epochs=int(epochs), **settings)
        images, num_seeds = run.probe.joined(run.splits.validation), 16 if name.startswith("digits") else 6
        updates, seeds = run.total_steps / run.splits.num_classes, range(FIRST_SEED, FIRST_SEED + num_seeds)
        names, step = list(rules()), AT_ONCE // num_seeds
        for start in range(0, len(names), step):
            chosen = names[start : start + step]
            runs = create_parallel_runs(run, len(chosen) * num_seeds, "stacked")
            runs.reset([*seeds] * len(chosen))
            runs.advance(PolicyByRun([rules()[rule] for rule in chosen for _ in seeds]))
            accuracy = runs.evaluate(images).accuracy.double().view(len(chosen), num_seeds)
            runs.close()
            with FILE.open("a") as file:
                for rule, of_rule in zip(chosen, accuracy.tolist(), strict=True):
                    for seed, value in zip(seeds, of_rule, strict=True):
                        file.write(f"{task},{updates:.2f},{rule},{seed},{value:.5f}\n")


def updates_per_class(task: str) -> float:
    """Return how many updates a run makes for each class."""
    return next(float(row["updates_per_class"]) for row in _rows() if row["task"] == task)


def over_best_fixed(task: str, rule: str) -> float:
    """Return how far the mean accuracy of a rule is above that of the best fixed temperature."""
    found: dict[str, list[float]] = {}
    for row in _rows():
        if row["task"] == task:
            found.setdefault(row["rule"], []).append(float(row["held_out_accuracy"]))
    means = {name: fmean(values) for name, values in found.items()}
    return means[rule] - max(mean for name, mean in means.items() if name.startswith("T="))


def _rows() -> list[dict[str, str]]:
    with FILE.open() as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main(sys.argv[1:] or TASKS)
