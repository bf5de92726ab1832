"""What sets the temperatures costs beside a fixed one, on Digits: ``cost.json``, from whole runs that take turns.

Three minutes on a CPU core:

    OMP_NUM_THREADS=1 python docs/results/rule_cost/cost.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from experiments.config import DistillConfig
from experiments.session.prepare import prepare
from experiments.session.summary import complete

ROUNDS = 9
BASELINE = "fixed"
PAPER = {"around": None, "temperature_min": 1.0, "temperature_max": 10.0}
ARMS: dict[str, dict[str, Any]] = {
    BASELINE: {"rule": "fixed"},
    "anneal": {"rule": "anneal"},
    "cosine": {"rule": "cosine"},
    "lskd-9": {"rule": "lskd", "method_options": {"kd_weight": 9}},
    "ctkd": {"rule": "ctkd"},
    "pretrained": {"agent": "pretrained"},
    "ppo-anneal": {"agent": "ppo"},
    "ppo-paper": {"agent": "ppo", **PAPER},
    "ppo-last_layer": {"agent": "ppo", "calibrator": "last_layer"},
}


def main() -> None:
    """Write the ratios of the CPU seconds of every arm and of the fixed temperature, over all rounds."""
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(ROUNDS):
        for arm, options in ARMS.items():
            seconds[arm].append(cpu_seconds(options))
    content = {"rounds": ROUNDS, "digits": {arm: _ratios(own, seconds[BASELINE]) for arm, own in seconds.items()}}
    (Path(__file__).parent / "cost.json").write_text(json.dumps(content, indent=2) + "\n")


def _ratios(seconds: list[float], baseline: list[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(seconds, baseline, strict=True)]
    return {"cost_ratio": median(ratios), "cost_ratio_min": min(ratios), "cost_ratio_max": max(ratios)}


def cpu_seconds(settings: dict[str, Any]) -> float:
    """Return the CPU seconds of a run's updates, evaluations and records."""
    config = DistillConfig.from_keywords({**settings, "progress": False, "tensorboard": False, "device": "cpu"})
    return float(complete(prepare(config, writes=False))["cpu_seconds"])


if __name__ == "__main__":
    main()
