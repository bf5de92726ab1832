"""Does a colder start help runs of few epochs, on tasks of the instance set ``many``?

``few_epochs.csv`` gets the test accuracy of annealing as it is, of annealing whose start does not follow the number of
epochs, and of fixed temperatures, with 16 seeds, for the tasks that it lacks. With the folder of the data in RLKD_DATA,
five minutes on a CPU core:

    python docs/results/anneal/few_epochs.py
"""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean

from agents.rules.base import Rule
from agents.rules.by_run import PolicyByRun
from agents.rules.schedules import Anneal
from agents.rules.simple import FixedTemperature
from experiments.commands.train_agent.instances import read_instance_set
from experiments.compare.statistics import estimate_mean
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "few_epochs.csv"
EPOCHS = {
    "cifar100-other-images-few-updates": 2,
    "fashion-20000-images-few-updates": 1,
    "cifar100-stage1": 5,
    "fashion-few-updates": 5,
}
"""The tasks, and how many epochs they have here."""
SEEDS = range(16)
RULES: dict[str, Rule] = {
    "anneal": Anneal(),
    "anneal from 3s": Anneal(cold_below=0),
    **{f"T={temperature}": FixedTemperature(float(temperature)) for temperature in (1.5, 2, 3, 4)},
}


def main() -> None:
    """Write the accuracies."""
    instances = {one.name: one for part in (read_instance_set("many"),) for one in (*part.train, *part.held_out)}
    if not FILE.exists():
        FILE.write_text("task,rule,seed,test_accuracy\n")
    with FILE.open("r+", newline="") as file:
        known = {row["task"] for row in csv.DictReader(file)}
        writer = csv.writer(file, lineterminator="\n")
        for task, epochs in ((task, epochs) for task, epochs in EPOCHS.items() if task not in known):
            usual = {"device": "cpu", "reward_interval": 2**30, "features": ("progress",)}
            run = instances[task].build(probe_images=1, epochs=epochs, **usual)
            runs, test = create_parallel_runs(run, len(RULES) * len(SEEDS), "stacked"), instances[task].test_set()
            assert test is not None
            runs.reset([*SEEDS] * len(RULES))
            runs.advance(PolicyByRun([rule for rule in RULES.values() for _ in SEEDS]))
            accuracy = runs.evaluate(test).accuracy.double().view(len(RULES), len(SEEDS))
            for name, of_rule in zip(RULES, accuracy.tolist(), strict=True):
                writer.writerows([task, name, seed, f"{value:.5f}"] for seed, value in zip(SEEDS, of_rule, strict=True))
            file.flush()
            runs.close()


def best_fixed(task: str) -> str:
    """Return the fixed temperature with the best mean."""
    of_task = _accuracies(task)
    return max((name for name in of_task if name.startswith("T=")), key=lambda name: fmean(of_task[name]))


def of_task(task: str, rule: str, other: str) -> dict[str, object]:
    """Return mean and interval of a rule's difference to another one, paired by seed."""
    known = _accuracies(task)
    found = estimate_mean([one - two for one, two in zip(known[rule], known[other], strict=True)])
    return {"mean": found.mean, "interval": found.interval}


def _accuracies(task: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with FILE.open() as file:
        for row in csv.DictReader(file):
            if row["task"] == task:
                found.setdefault(row["rule"], []).append(float(row["test_accuracy"]))
    return found


if __name__ == "__main__":
    main()
