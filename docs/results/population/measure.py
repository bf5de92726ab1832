"""What a population brings: its choice against the best of its members in hindsight, and one agent for eight students.

``members.csv`` gets the accuracies in percent of every member, ``kept.csv`` those of what may be kept, and of single
runs of PPO. With the folder of the data in RLKD_DATA and a teacher of ``rlkd teacher --preset fashion_mnist --out
teachers/fashion``, an hour on a CPU core:

    python docs/results/population/measure.py
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import DistillationResult, distill

FOLDER = Path(__file__).parent
FASHION = {
    "data": "fashion_mnist",
    "teacher": "teachers/fashion",
    "teacher_model": "cnn32",
    "student": "cnn8",
    "train_images": 5000,
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "schedule": "cosine",
    "warmup_epochs": 5,
}
TASKS: dict[str, tuple[dict[str, Any], int]] = {
    "Digits": ({"data": "digits", "teacher": "auto", "student": "auto"}, 20),
    "Fashion-MNIST": (FASHION, 5),
}
"""Arguments of ``distill`` and the number of seeds."""
PPO = {"temperature": "ppo", "calibrator": "uniform", "explore": False}
POPULATIONS: dict[str, dict[str, Any]] = {"fixed": {"temperature": "fixed"}, "anneal": {}, "ppo": PPO}
FIGURES = ("val_accuracy", "test_accuracy", "last_val_accuracy", "last_test_accuracy")


def main() -> None:
    """Write the accuracies."""
    with (FOLDER / "members.csv").open("w") as members, (FOLDER / "kept.csv").open("w") as kept:
        of_members, of_kept = (csv.writer(file, lineterminator="\n") for file in (members, kept))
        of_members.writerow(["task", "population", "seed", "member", *FIGURES])
        of_kept.writerow(["task", "population", "seed", "kept", "val_accuracy", "test_accuracy", "last_test_accuracy"])
        for task, name, seed, options in runs():
            for mode in ("population", "single") if name == "ppo" else ("population",):
                size = {"population": 8} if mode == "population" else {}
                result = distill(**options, seed=seed, progress=False, device="cpu", **size)
                if size:
                    of_members.writerows([task, name, seed, *row] for row in member_rows(result))
                of_kept.writerows([task, name, seed, *row] for row in kept_rows(result))
            members.flush()
            kept.flush()


def runs() -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Yield task, population, seed, and arguments of ``distill``."""
    for task, (options, seeds) in TASKS.items():
        for seed in range(seeds):
            for name, population in POPULATIONS.items():
                yield task, name, seed, {**options, **population}


def member_rows(result: DistillationResult) -> Iterator[list[Any]]:
    """Yield name and accuracies of every member."""
    for member in result.summary["population"]["members"]:
        yield [member["name"], *(percent(member[figure]) for figure in FIGURES)]


def kept_rows(result: DistillationResult) -> Iterator[list[Any]]:
    """Yield what may be kept of a population, or the student of a single run."""
    summary = result.summary
    single = {"single": {"val_accuracy": result.validation_accuracy, "test_accuracy": result.test_accuracy}}
    for name, one in summary.get("population", {}).get("candidates", single).items():
        last = percent(summary["student_last_test_accuracy"]) if name in ("best", "single") else ""
        yield [name, percent(one["val_accuracy"]), percent(one["test_accuracy"]), last]


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100.0 * share:.3f}"


if __name__ == "__main__":
    main()
