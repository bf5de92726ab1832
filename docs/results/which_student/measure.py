"""Which student of a run to keep: that of the last epoch, of the best epoch on validation, or a mean of weights.

``kept.csv`` gets a line for every run: the test accuracies in percent of every candidate.

    python docs/results/which_student/measure.py SEEDS TASK ...
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import DistillConfig
from experiments.session.population.keeping import average_weights
from experiments.session.prepare import prepare
from rlkd_env.data import ImageSet
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun

FASHION = {
    "dataset": "fashion_mnist",
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
}
TASKS: dict[str, dict[str, Any]] = {
    "digits": {},
    "digits-100": {"train_images": 100},
    "digits-mlp64": {"student": "mlp64"},
    "digits-dkd": {"method": "dkd"},
    "fashion": FASHION,
    "digits-detection": {
        "dataset": "digits_detection",
        "student": "fasterrcnn/resnet8",
        "train_images": 100,
        "validation_images": 50,
        "method_options": {"task_weight": 1, "kd_weight": 3},
        "epochs": 36,
        "batch_size": 8,
        "proposals": 64,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "weight_decay": 0.0001,
        "schedule": "cosine",
    },
}
"""Options of ``rlkd distill``, as those of ``rlkd compare --preset all``."""
RULES: dict[str, dict[str, Any]] = {
    "anneal": {},
    "T=1": {"rule": "fixed", "fixed_temperature": 1.0},
    "T=4": {"rule": "fixed", "fixed_temperature": 4.0},
}
SHARES = (0.05, 0.1, 0.2, 0.3)
"""Shares of the run, at its end, over whose epochs weights are averaged."""
CANDIDATES = ("last", "best_accuracy", "best_loss", *(f"mean_{share:g}" for share in SHARES))


@dataclass
class Students(RunHook):
    """The student of every epoch, with accuracy and loss on the validation images."""

    epochs: list[tuple[float, float, dict[str, Tensor]]] = field(default_factory=list)

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Keep the student."""
        found = run.evaluate_validation()
        self.epochs.append((float(found.accuracy), float(found.loss), deepcopy(run.student.state_dict())))


def main(num_seeds: int, tasks: Sequence[str]) -> None:
    """Measure all candidates on tasks, and go on with a file that is there."""
    path = Path(__file__).parent / "kept.csv"
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {(row["task"], row["rule"], int(row["seed"])) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        if not done:
            lines.writerow(["task", "rule", "seed", *CANDIDATES])
        for task in tasks:
            for name, rule in RULES.items():
                config = DistillConfig().replaced({**TASKS[task], **rule, "device": "cpu", "progress": False})
                session = prepare(config, writes=False)
                test = session.test_set()
                for seed in range(100, 100 + num_seeds):
                    if (task, name, seed) not in done:
                        lines.writerow([task, name, seed, *(f"{one:.3f}" for one in measure(session, seed, test))])
                        file.flush()


def measure(session: Any, seed: int, test: ImageSet) -> list[float]:
    """Make a run and return the accuracies in percent, or AP, of all candidates."""
    run, students = session.run, Students()
    run.add_hook(students)
    run.reset(seed)
    run.advance(session.choice.policy(run, seed) if run.policy is None else run.policy)
    run.remove_hook(students)
    epochs = students.epochs
    weights = [
        epochs[-1][2],
        max(epochs, key=lambda one: (one[0], -one[1]))[2],
        min(epochs, key=lambda one: one[1])[2],
    ]
    networks = [session.network(one) for one in weights]
    for share in SHARES:
        count = max(round(share * len(epochs)), 2)
        members = [session.network(one[2]) for one in epochs[-count:]]
        networks.append(average_weights(members, run, seed))
    return [100.0 * float(run.task.evaluate(network, test).accuracy) for network in networks]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2:])
