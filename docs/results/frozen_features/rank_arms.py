"""Do cheap students rank the rules of the comparison over nine tasks as its convolutional students do?

``arms.csv`` gets the mean test accuracy in percent of fully connected students with every fixed temperature and every
rule that learns nothing along, beside that of the convolutional ones in ``docs/results/all``: on principal components
of Fashion-MNIST's pixels, with a fresh and an over-trained teacher, and on features of the CIFAR-100 teacher. Prints
Spearman's correlations. With the folder of the data in RLKD_DATA, five minutes on a CPU core:

    python docs/results/frozen_features/rank_arms.py
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from agents.rules.by_run import PolicyByRun
from agents.rules.create import RuleSetting, create_rule
from experiments.commands.train_agent.instances import Instance
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "arms.csv"
COMPARISON = Path(__file__).parents[1] / "all" / "comparison.csv"
SEEDS = range(8)
PIXELS = {"components": 64, "noise": 0.2}
FEATURES = {"network": "weights/resnet56_cifar100.pth", "model": "resnet56", "stage": 1, "noise": 0.5}
COMMON = {"train_images": 5000, "epochs": 20, "validation_images": 500, "student": "mlp64"}
FRESH = {"model": "mlp256", "epochs": 5}
OVERTRAINED = {"model": "mlp256", "epochs": 60}
CHEAP = {
    "fashion": ({"dataset": "fashion_mnist", "teacher_images": 30000}, FRESH, PIXELS),
    "fashion-overtrained": ({"dataset": "fashion_mnist", "teacher_images": 5000}, OVERTRAINED, PIXELS),
    "cifar100": ({"dataset": "cifar100"}, None, FEATURES),
}
"""Settings, the teacher's recipe and the features of the cheap runs, by the task that they stand for."""
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"T={temperature}": ("fixed", {"temperature": temperature}) for temperature in (1, 2, 3, 4, 6, 8, 12, 16)},
    "anneal": ("anneal", {}),
    "anneal-shared": ("anneal", {"own_spread": 0}),
    "cosine": ("cosine", {}),
    "dts": ("dts", {}),
    "dts-8-1": ("dts", {"first": 8, "last": 1}),
    "dts-2s-0.5s": ("dts", {"first": "2s", "last": "0.5s"}),
}


def accuracies(task: str) -> dict[str, float]:
    """Return the mean test accuracy in percent of the cheap students with every arm."""
    settings, recipe, features = CHEAP[task]
    instance = Instance(task, {**COMMON, **settings}, SEEDS, recipe, features)
    run = instance.build(probe_images=1, device="cpu", reward_interval=2**30, features=("progress",))
    setting = RuleSetting(run.temperature_range, 4.0, run.teacher_deviation, run.splits.num_classes, 0)
    runs, test = create_parallel_runs(run, len(ARMS) * len(SEEDS), "stacked"), instance.test_set()
    assert test is not None
    runs.reset([*SEEDS] * len(ARMS))
    runs.advance(PolicyByRun([create_rule(name, options, setting) for name, options in ARMS.values() for _ in SEEDS]))
    found = 100.0 * runs.evaluate(test).accuracy.double().view(len(ARMS), len(SEEDS)).mean(1)
    return dict(zip(ARMS, found.tolist(), strict=True))


def convolutional() -> dict[tuple[str, str], float]:
    """Return the mean test accuracy in percent of every task's arms in the comparison over all tasks."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with COMPARISON.open() as file:
        for row in csv.DictReader(file):
            found[row["task"], row["arm"]].append(100.0 * float(row["last_test_accuracy"]))
    return {arm: fmean(values) for arm, values in found.items()}


def correlation(task: str) -> tuple[float, int]:
    """Return Spearman's correlation of both columns of a task, and the number of arms."""
    with FILE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    columns = (np.array([float(row[name]) for row in rows]) for name in ("convolutional", "fully_connected"))
    return float(spearmanr(*columns)[0]), len(rows)


def main() -> None:
    """Train the cheap students, write both columns and print their correlations."""
    of_images = convolutional()
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "arm", "convolutional", "fully_connected"])
        for task in CHEAP:
            for arm, cheap in accuracies(task).items():
                if (task, arm) in of_images:
                    writer.writerow([task, arm, f"{of_images[task, arm]:.3f}", f"{cheap:.3f}"])
    for task in CHEAP:
        print(task, "{:.2f} over {} arms".format(*correlation(task)))


if __name__ == "__main__":
    main()
