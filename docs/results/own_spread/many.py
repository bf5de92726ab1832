"""What does the power of annealing's own spread bring on tasks of the instance set ``many``, in long and short runs?

``many.csv`` gets the test accuracy with each power and seed, for the held-out tasks as they are and for the short runs
of ``docs/results/anneal/short_runs.py``. With the folder of the data in RLKD_DATA, ten minutes on a CPU core:

    python docs/results/own_spread/many.py
"""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from statistics import fmean

from agents.rules.by_run import PolicyByRun
from agents.rules.schedules import Anneal
from experiments.commands.train_agent.instances import read_instance_set
from experiments.compare.statistics import estimate_mean
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "many.csv"
SHORT = runpy.run_path(str(FILE.parents[1] / "anneal" / "short_runs.py"))["EPOCHS"]
"""The short runs, and their epochs."""
POWERS = (0.0, 0.25, 0.5, 1.0)
SEEDS = range(12)


def main() -> None:
    """Write the accuracies of the tasks that the file lacks."""
    held_out = {one.name: one for one in read_instance_set("many").held_out}
    if not FILE.exists():
        FILE.write_text("task,epochs,power,seed,test_accuracy\n")
    with FILE.open("r+", newline="") as file:
        known = {(row["task"], row["epochs"]) for row in csv.DictReader(file)}
        writer = csv.writer(file, lineterminator="\n")
        for task, epochs in [*SHORT.items(), *((name, None) for name in held_out)]:
            changed = {} if epochs is None else {"epochs": epochs}
            usual = {"device": "cpu", "reward_interval": 2**30, "features": ("progress",)}
            run, test = held_out[task].build(probe_images=1, **changed, **usual), held_out[task].test_set()
            if test is None or (task, str(run.recipe.epochs)) in known:
                continue
            runs = create_parallel_runs(run, len(POWERS) * len(SEEDS), "stacked")
            runs.reset([*SEEDS] * len(POWERS))
            runs.advance(PolicyByRun([Anneal(own_spread=power) for power in POWERS for _ in SEEDS]))
            accuracy = runs.evaluate(test).accuracy.double().view(len(POWERS), len(SEEDS))
            for power, of_power in zip(POWERS, accuracy.tolist(), strict=True):
                found = zip(SEEDS, of_power, strict=True)
                writer.writerows([task, run.recipe.epochs, power, seed, f"{value:.5f}"] for seed, value in found)
            file.flush()
            runs.close()


def of_task(task: str, epochs: str, power: float) -> dict[str, object]:
    """Return mean and interval of what a power gains over none, paired by seed."""
    known = _accuracies()
    pairs = zip(known[task, epochs, power], known[task, epochs, 0.0], strict=True)
    found = estimate_mean([one - other for one, other in pairs])
    return {"mean": found.mean, "interval": found.interval}


def mean_of(task: str, epochs: str) -> float:
    """Return the mean accuracy without own spread."""
    return fmean(_accuracies()[task, epochs, 0.0])


def _accuracies() -> dict[tuple[str, str, float], list[float]]:
    found: dict[tuple[str, str, float], list[float]] = {}
    with FILE.open() as file:
        for row in csv.DictReader(file):
            found.setdefault((row["task"], row["epochs"], float(row["power"])), []).append(float(row["test_accuracy"]))
    return found


if __name__ == "__main__":
    main()
