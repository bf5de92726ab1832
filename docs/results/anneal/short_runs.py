"""Does the colder start help short runs, on tasks of the instance set ``many``?

``short_runs.csv`` gets the test accuracy of annealing as it is, of annealing whose start follows the number of epochs
alone, of annealing that always starts at ``3s``, and of fixed temperatures, with 12 seeds, for the tasks that it lacks.
With the folder of the data in RLKD_DATA, ten minutes on a CPU core:

    python docs/results/anneal/short_runs.py
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

FILE = Path(__file__).parent / "short_runs.csv"
EPOCHS = {
    "cifar100-other-images-few-updates": 1,
    "cifar100-other-images": 6,
    "cifar30-other-classes": 4,
    "cifar10-fresh-teacher": 6,
    "digits-64-units": 8,
    "fashion-20000-images-few-updates": 1,
}
"""The tasks, and how many epochs they have here."""
SEEDS = range(12)


def rules(epochs: int) -> dict[str, Rule]:
    """Return the rules by name, for runs of so many epochs."""
    by_epochs = f"{3 * min(1.0, epochs / 10) ** 0.5}s"
    fixed = {f"T={temperature}": FixedTemperature(float(temperature)) for temperature in (1, 1.5, 2, 3, 4, 6)}
    return {
        "anneal": Anneal(own_spread=0.0),
        "by epochs alone": Anneal(by_epochs, own_spread=0.0),
        "from 3s": Anneal(cold_start=False, own_spread=0.0),
        **fixed,
    }


def main() -> None:
    """Write the accuracies."""
    instances = {one.name: one for part in (read_instance_set("many"),) for one in (*part.train, *part.held_out)}
    if not FILE.exists():
        FILE.write_text("task,updates_per_class,rule,seed,test_accuracy\n")
    with FILE.open("r+", newline="") as file:
        known = {row["task"] for row in csv.DictReader(file)}
        writer = csv.writer(file, lineterminator="\n")
        for task, epochs in ((task, epochs) for task, epochs in EPOCHS.items() if task not in known):
            usual = {"device": "cpu", "reward_interval": 2**30, "features": ("progress",)}
            run, chosen = instances[task].build(probe_images=1, epochs=epochs, **usual), rules(epochs)
            runs, test = create_parallel_runs(run, len(chosen) * len(SEEDS), "stacked"), instances[task].test_set()
            assert test is not None
            runs.reset([*SEEDS] * len(chosen))
            runs.advance(PolicyByRun([rule for rule in chosen.values() for _ in SEEDS]))
            accuracy = runs.evaluate(test).accuracy.double().view(len(chosen), len(SEEDS))
            updates = f"{run.total_steps / run.splits.num_classes:.2f}"
            for name, of_rule in zip(chosen, accuracy.tolist(), strict=True):
                found = zip(SEEDS, of_rule, strict=True)
                writer.writerows([task, updates, name, seed, f"{value:.5f}"] for seed, value in found)
            file.flush()
            runs.close()


def updates_per_class(task: str) -> float:
    """Return how many updates a run makes for each class."""
    return next(float(row["updates_per_class"]) for row in _rows() if row["task"] == task)


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
    for row in _rows():
        if row["task"] == task:
            found.setdefault(row["rule"], []).append(float(row["test_accuracy"]))
    return found


def _rows() -> list[dict[str, str]]:
    with FILE.open() as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
