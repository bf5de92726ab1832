"""How annealing from and to several temperatures does on held-out tasks of the instance set ``many``.

``python docs/results/anneal/sweep.py SEEDS TASK ...`` writes ``sweep.csv``, a line for every rule, task and seed. The
students are measured on the tasks' validation images, so that no default is chosen on test images.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.rules.schedules import DTS, Anneal
from agents.rules.simple import FixedTemperature
from experiments.commands.train_agent.held_out import HeldOutRuns
from experiments.commands.train_agent.instances import read_instance_set
from rlkd_env.instances.temperature import Policy

FIXED = (1, 2, 3, 4, 6, 8, 12)
FIRST, LAST = ("4s", "3s", "2s", "1.5s", "1s"), ("0.5s", "0.35s", "0.25s")


def rules() -> dict[str, Policy]:
    """Return the rules by name."""
    fixed: dict[str, Policy] = {f"T={temperature}": FixedTemperature(float(temperature)) for temperature in FIXED}
    return fixed | {f"{first} to {last}": Anneal(first, last) for first in FIRST for last in LAST} | {"dts": DTS()}


def main(num_seeds: int, tasks: Sequence[str]) -> None:
    """Measure all rules on tasks."""
    with (Path(__file__).parent / "sweep.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["task", "rule", "seed", "validation_accuracy"])
        for instance in (one for one in read_instance_set("many").held_out if one.name in tasks):
            runs = HeldOutRuns(instance, "cpu", "stacked")
            seeds = range(50_000, 50_000 + num_seeds)
            for name, rule in rules().items():
                accuracies = runs.accuracies(rule, runs.template.splits.validation, list(seeds))
                for seed, accuracy in zip(seeds, accuracies, strict=True):
                    lines.writerow([instance.name, name, seed, f"{accuracy:.5f}"])
                file.flush()
            runs.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
