"""What does the package's policy add to the annealed schedule on the tasks that it was trained on?

``policy.csv`` gets the test accuracy in percent of both, with 32 seeds that it was not trained on. With the folder of
the data in RLKD_DATA, five minutes on a CPU core:

    python docs/results/frozen_features/policy.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from agents.learned import load_policy
from agents.rules import create_rule
from experiments.commands.train_agent.instances import read_instance_set
from experiments.compare.statistics import estimate_mean
from rlkd_env.runs.parallel import create_parallel_runs

FILE = Path(__file__).parent / "policy.csv"
SEEDS = range(32)


def main() -> None:
    """Write the accuracies."""
    arms = {"anneal": create_rule("anneal"), "pretrained": load_policy("pretrained")}
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "seed", *arms])
        for instance in read_instance_set("many").train:
            run = instance.build(probe_images=1, device="cpu", reward_interval=2**30, features=("progress",))
            runs, test, columns = create_parallel_runs(run, len(SEEDS), "stacked"), instance.test_set(), []
            assert test is not None
            for policy in arms.values():
                runs.reset(SEEDS)
                runs.advance(policy)
                columns.append(100.0 * runs.evaluate(test).accuracy.double().numpy())
            for seed, *row in zip(SEEDS, *columns, strict=True):
                writer.writerow([instance.name, seed, *(f"{accuracy:.3f}" for accuracy in row)])
            file.flush()
            found = difference(columns[1], columns[0])
            print(f"{instance.name:32s}", {key: np.round(value, 2) for key, value in found.items()}, flush=True)


def difference(one: np.ndarray, other: np.ndarray) -> dict[str, object]:
    """Return mean and 95 % interval of a paired difference ``(S,)`` in points."""
    found = estimate_mean((one - other).tolist())
    return {"mean": found.mean, "interval": found.interval}


def of_task(task: str) -> dict[str, object]:
    """Return mean and interval of the policy's gain over the schedule on a task, as shares."""
    with FILE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    one, other = (np.array([float(row[arm]) for row in rows]) / 100.0 for arm in ("pretrained", "anneal"))
    return difference(one, other)


if __name__ == "__main__":
    main()
