"""Students of Digits with agents whose discount is 0, the default, and 0.99: one line for each run.

Run ``python docs/results/learning/digits.py SEEDS [AGENT ...]``; it writes ``digits.csv`` beside this file, and goes on
where it was stopped.
"""

from __future__ import annotations

import csv
import sys
from itertools import product
from pathlib import Path

from experiments import distill

TABLE = Path(__file__).with_suffix(".csv")
DISCOUNTS = (0.0, 0.99)
FIELDS = ("agent", "discount", "seed", "last_test_accuracy", "test_accuracy")


def main() -> None:
    """Make the runs that are missing, in turns."""
    seeds, agents = range(int(sys.argv[1])), sys.argv[2:] or ["ppo", "sac"]
    done = set()
    if TABLE.exists():
        with TABLE.open() as file:
            done = {(row["agent"], float(row["discount"]), int(row["seed"])) for row in csv.DictReader(file)}
    else:
        TABLE.write_text(",".join(FIELDS) + "\n")
    for seed, agent, discount in product(seeds, agents, DISCOUNTS):
        if (agent, discount, seed) in done:
            continue
        result = distill("auto", "auto", "digits", temperature=agent, discount=discount, seed=seed, progress=False)
        figures = (result.summary["student_last_test_accuracy"], result.summary["student_test_accuracy"])
        with TABLE.open("a") as file:
            csv.writer(file, lineterminator="\n").writerow([agent, discount, seed, *(f"{one:.4f}" for one in figures)])


if __name__ == "__main__":
    main()
