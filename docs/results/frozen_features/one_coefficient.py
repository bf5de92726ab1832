"""What does a single coefficient around the annealed schedule gain, on every training task of the instance set many?

A coefficient of 0.3 or -0.3, of the constant or of one feature, for the whole run (``steady``), rising along it from
-0.3 to 0.3 or falling (``progress``), or following the context: how the student's logits correlate with the teacher's,
how often both predict the same class, how far the student's logits spread. ``one_coefficient.csv`` gets the paired
difference to the schedule in points of test accuracy, with its standard error over the seeds. With the folder of the
data in RLKD_DATA, a quarter of an hour on a CPU core:

    python docs/results/frozen_features/one_coefficient.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from experiments.commands.train_agent.instances import Instance, read_instance_set
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs

FOLDER = Path(__file__).parent
FILE = FOLDER / "one_coefficient.csv"
SEEDS = range(50_000, 50_008)
SIZE = 0.3
FEW_UPDATES = (
    "cifar100-stage2-large-student",
    "cifar100-many-images",
    "cifar20-few-updates",
    "fashion-few-updates",
)
"""Tasks with at most four passes over the images."""
FEATURES = (
    "student_performance",
    "student_uncertainty",
    "teacher_performance",
    "teacher_uncertainty",
    "logit_correlation",
    "teacher_relative_spread",
    "student_relative_spread",
)
RULE = CoefficientRule(FEATURES)
FOLLOWED = ("steady", *RULE.context_names)
ARMS = [
    (name, followed, sign * SIZE)
    for name in ("constant", *FEATURES)
    for followed in (FOLLOWED if name == "constant" else FOLLOWED[:2])
    for sign in (1, -1)
]


class OneCoefficient:
    """The schedule for the first S runs, and then S runs for each of :data:`ARMS`."""

    def __init__(self) -> None:
        weights = torch.zeros(1 + len(ARMS), RULE.num_coefficients, len(FOLLOWED))
        for arm, (name, followed, value) in enumerate(ARMS, start=1):
            weights[arm, ("constant", *FEATURES).index(name), FOLLOWED.index(followed)] = value
        self.weights = weights.repeat_interleave(len(SEEDS), dim=0)

    def __call__(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch."""
        context = RULE.context(outputs)
        followed = torch.cat([torch.ones_like(context[:, :1]), context], dim=1)
        return RULE.temperature(torch.einsum("knd,kd->kn", self.weights, followed), outputs)


def accuracies(instance: Instance) -> Tensor:
    """Return the test accuracies in percent of the schedule and all arms, ``(1 + A, S)``."""
    run = instance.build(probe_images=1, device="cpu", reward_interval=2**30, features=("progress",))
    runs, test = create_parallel_runs(run, (1 + len(ARMS)) * len(SEEDS), "stacked"), instance.test_set()
    assert test is not None
    runs.reset([*SEEDS] * (1 + len(ARMS)))
    runs.advance(OneCoefficient())
    return 100.0 * runs.evaluate(test).accuracy.double().view(1 + len(ARMS), len(SEEDS))


def summary(
    coefficient: str, followed: str, value: float, few_updates: bool | None = None
) -> tuple[float, float, float]:
    """Return mean, standard error and least of a coefficient's differences.

    They are of all tasks, or with ``few_updates`` of those of few updates or of all others.
    """
    with FILE.open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["coefficient"], row["follows"], float(row["value"])) == (coefficient, followed, value)
            and few_updates in (None, row["task"] in FEW_UPDATES)
        ]
    differences, errors = ([float(row[name]) for row in rows] for name in ("difference", "standard_error"))
    mean_error = sum(error**2 for error in errors) ** 0.5 / len(rows)
    return sum(differences) / len(rows), mean_error, min(differences)


def main() -> None:
    """Write the differences."""
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "coefficient", "follows", "value", "difference", "standard_error"])
        for instance in read_instance_set("many").train:
            found = accuracies(instance)
            differences = found[1:] - found[:1]
            errors = differences.std(dim=1) / len(SEEDS) ** 0.5
            for arm, difference, error in zip(ARMS, differences.mean(dim=1).tolist(), errors.tolist(), strict=True):
                writer.writerow([instance.name, *arm, f"{difference:.3f}", f"{error:.3f}"])
            file.flush()


if __name__ == "__main__":
    main()
