"""How annealing of both shapes, from and to several temperatures, does on tasks of the instance set ``many``.

``python docs/results/anneal/sweep.py TASK ...`` appends to ``sweep.csv`` a line for every rule, task and seed that it
lacks. Students are measured on images that they have not seen and that are none of the test images: the task's
validation images, its probe, and what only the teacher has seen. So no default is chosen on test images.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.rules.base import Rule
from agents.rules.by_run import PolicyByRun
from agents.rules.schedules import DTS, Anneal
from agents.rules.simple import FixedTemperature
from experiments.commands.train_agent.instances import Instance, read_instance_set
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "sweep.csv"
FIXED = (1, 1.5, 2, 3, 4, 6, 8, 12)
SHAPES, FIRST, LAST = ("linear", "cosine"), ("4s", "3s", "2s", "1.5s", "1s"), ("0.5s", "0.35s", "0.25s")
ALONG_DTS = ((3.0, 0.35), (2.2, 0.28), (1.5, 0.2))
"""Ends of DTS's line, whose last quarter is flat, in deviations; 2.2 and 0.28 are 8 and 1 on CIFAR-100."""
FIRST_SEED, AT_ONCE = 50_000, 128


def rules(deviation: float) -> dict[str, Rule]:
    """Return the rules by name, for a teacher whose logits have this standard deviation."""
    fixed: dict[str, Rule] = {f"T={temperature}": FixedTemperature(float(temperature)) for temperature in FIXED}
    annealed = {
        f"{shape}, {first} to {last}": Anneal(first, last, shape, own_spread=0.0)
        for shape in SHAPES
        for first in FIRST
        for last in LAST
    }
    along_dts: dict[str, Rule] = {
        f"dts, {first:g}s to {last:g}s": DTS(first * deviation, last * deviation) for first, last in ALONG_DTS
    }
    return fixed | annealed | {"dts": DTS(), **along_dts}


def measured(instance: Instance, names: Sequence[str], num_seeds: int) -> Iterator[tuple[str, int, float]]:
    """Return rule, seed and accuracy of an instance's runs, several rules at once."""
    run = instance.build(probe_images=7500, device="cpu", reward_interval=2**30, features=("progress",))
    images, seeds = run.probe.joined(run.splits.validation), range(FIRST_SEED, FIRST_SEED + num_seeds)
    step = max(1, AT_ONCE // num_seeds)
    for start in range(0, len(names), step):
        chosen = names[start : start + step]
        runs = create_parallel_runs(run, len(chosen) * num_seeds, "stacked")
        runs.reset([*seeds] * len(chosen))
        runs.advance(PolicyByRun([rules(run.teacher_deviation)[name] for name in chosen for _ in seeds]))
        accuracy = runs.evaluate(images).accuracy.double().view(len(chosen), num_seeds)
        runs.close()
        for name, of_rule in zip(chosen, accuracy.tolist(), strict=True):
            yield from ((name, seed, value) for seed, value in zip(seeds, of_rule, strict=True))


def main(tasks: Sequence[str]) -> None:
    """Measure what is missing on tasks."""
    if not FILE.exists():
        FILE.write_text("task,rule,seed,held_out_accuracy\n")
    with FILE.open() as file:
        known = {(row["task"], row["rule"]) for row in csv.DictReader(file)}
    instances = {one.name: one for part in (read_instance_set("many"),) for one in (*part.train, *part.held_out)}
    for task in tasks:
        names = [name for name in rules(1.0) if (task, name) not in known]
        for name, seed, accuracy in measured(instances[task], names, 12 if task.startswith("digits") else 4):
            with FILE.open("a") as file:
                file.write(f'{task},"{name}",{seed},{accuracy:.5f}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
