"""Do fully connected students on frozen features rank temperature rules as convolutional students on the images do?

``convolutional.csv`` holds 179 rules ``log T = a0 + a1 q + sum of (w + v q) x`` with q = 2 progress - 1, and the test
accuracy of ResNet8 students that were distilled by them on 5,000 images of CIFAR-100, on an H100 (schedules: mean of 4
seeds; random rules: one). This script distils fully connected students by the same rules, writes their test accuracies
beside them into ``ranking.csv``, and prints Spearman's correlations. With the folder of the data in RLKD_DATA, ten
minutes on a CPU core:

    python docs/results/frozen_features/rank_rules.py
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from experiments.commands.train_agent.instances import Instance
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs

FOLDER = Path(__file__).parent
SEEDS = 1
AT_ONCE = 60
SETTINGS = {"dataset": "cifar100", "train_images": 5000, "epochs": 20, "validation_images": 500}
NETWORK = {"network": "weights/resnet56_cifar100.pth", "model": "resnet56"}
VARIANTS = {
    "stage1_64_units": (1, 0.5, "mlp64"),
    "stage1_256_units": (1, 0.5, "mlp256"),
    "stage2_64_units": (2, 0.5, "mlp64"),
}
TERMS = ("student_performance", "teacher_margin", "logit_correlation", "teacher_relative_spread", "teacher_performance")


class Rules:
    """The temperatures of K runs, each with a rule of its own: parameters ``(K, 12)`` in the order of the file."""

    def __init__(self, parameters: np.ndarray) -> None:
        self.parameters = torch.from_numpy(parameters).float()

    def __call__(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch."""
        q, spread = 2.0 * outputs.progress - 1.0, outputs.teacher_logits.std(-1, correction=0)
        unit = outputs.by_run(spread).mean(1, keepdim=True)
        student, teacher = outputs.student_logits.detach(), outputs.teacher_logits
        top = outputs.teacher_probabilities.topk(2, -1).values
        centred = (logits - logits.mean(-1, keepdim=True) for logits in (student, teacher))
        columns = [
            2.0 * outputs.true_class(outputs.student_probabilities) - 1.0,
            2.0 * (top[:, 0] - top[:, 1]) - 1.0,
            F.cosine_similarity(*centred, dim=-1),
            (outputs.by_run(spread) / unit).log().flatten(),
            2.0 * outputs.true_class(outputs.teacher_probabilities) - 1.0,
        ]
        values = outputs.by_run(torch.stack(columns, -1))
        weights = self.parameters[:, 2:7] + q * self.parameters[:, 7:]
        logarithm = self.parameters[:, :1] + q * self.parameters[:, 1:2] + torch.einsum("kbf,kf->kb", values, weights)
        return Temperature.shared(logarithm.clamp(math.log(0.2), math.log(64.0)).exp().flatten())


def accuracies(variant: str, parameters: np.ndarray) -> np.ndarray:
    """Return the mean test accuracy in percent of every rule's students ``(R,)``."""
    stage, noise, student = VARIANTS[variant]
    features = {**NETWORK, "stage": stage, "noise": noise}
    instance = Instance(variant, {**SETTINGS, "student": student}, range(SEEDS), frozen_features=features)
    run = instance.build(probe_images=1, device="cpu", reward_interval=2**30, features=("progress",))
    test, found = instance.test_set(), []
    for first in range(0, len(parameters), AT_ONCE // SEEDS):
        chosen = parameters[first : first + AT_ONCE // SEEDS]
        runs = create_parallel_runs(run, len(chosen) * SEEDS, "stacked")
        runs.reset([*range(SEEDS)] * len(chosen))
        runs.advance(Rules(chosen.repeat(SEEDS, axis=0)))
        found.append(100.0 * runs.evaluate(test).accuracy.view(len(chosen), SEEDS).mean(1).numpy())
    return np.concatenate(found)


def without_schedule(values: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return what a quadratic function of a rule's schedule does not explain of its accuracy."""
    a, b = parameters[:, 0], parameters[:, 1]
    terms = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1)
    return values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]


def correlations() -> dict[str, tuple[float, float, float]]:
    """Return Spearman's correlations of every variant in ``ranking.csv`` with the convolutional students.

    They are over the schedules, over the random rules, and over what instance terms add to those rules' schedules.
    """
    with (FOLDER / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "kind"}
    is_random = np.array([row["kind"] == "random" for row in rows])
    parameters = np.stack([values["a0"], values["a1"]], axis=1)[is_random]
    reference, found = values["convolutional"], {}
    for variant in VARIANTS:
        own = values[variant]
        terms = (without_schedule(accuracy[is_random], parameters) for accuracy in (own, reference))
        pairs = ((own[chosen], reference[chosen]) for chosen in (~is_random, is_random))
        found[variant] = tuple(float(spearmanr(*pair)[0]) for pair in (*pairs, tuple(terms)))
    return found


def main() -> None:
    """Train the students, write the ranking and print its correlations."""
    with (FOLDER / "convolutional.csv").open() as file:
        head, *rows = list(csv.reader(file))
    parameters = np.array([[float(cell) for cell in row[1:-1]] for row in rows])
    columns = [accuracies(variant, parameters) for variant in VARIANTS]
    with (FOLDER / "ranking.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head[:-1], "convolutional", *VARIANTS])
        writer.writerows([*row, *(f"{values[number]:.2f}" for values in columns)] for number, row in enumerate(rows))
    for variant, (schedules, random, terms) in correlations().items():
        print(f"{variant:18s} schedules {schedules:.2f}, random rules {random:.2f}, their instance terms {terms:.2f}")


if __name__ == "__main__":
    main()
