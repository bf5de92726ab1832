"""What a population of eight costs on Digits against one run: ``cost.json``, from whole runs that take turns.

A minute on a CPU core:

    OMP_NUM_THREADS=1 python docs/results/population/cost.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from experiments import distill

ROUNDS = 9
MODES = ("stacked", "serial")


def main() -> None:
    """Write the ratios of the CPU seconds of a population and of one run, over all rounds."""
    arms: dict[str, dict[str, Any]] = {mode: {"population": 8, "run_mode": mode} for mode in MODES}
    seconds: dict[str, list[float]] = {"one": [], **{arm: [] for arm in arms}}
    for _ in range(ROUNDS):
        for arm, options in {"one": {}, **arms}.items():
            seconds[arm].append(cpu_seconds(**options))
    told = {}
    for arm in arms:
        ratios = [of_all / of_one for of_all, of_one in zip(seconds[arm], seconds["one"], strict=True)]
        told[arm] = {"cost_ratio": median(ratios), "cost_ratio_min": min(ratios), "cost_ratio_max": max(ratios)}
    content = {"students": 8, "rounds": ROUNDS, "cpu_seconds_of_one": median(seconds["one"]), **told}
    (Path(__file__).parent / "cost.json").write_text(json.dumps(content, indent=2) + "\n")


def cpu_seconds(**options: Any) -> float:
    """Return the CPU seconds of a run's updates, evaluations and records."""
    result = distill("auto", "auto", "digits", progress=False, device="cpu", **options)
    return float(result.summary["cpu_seconds"])


if __name__ == "__main__":
    main()
