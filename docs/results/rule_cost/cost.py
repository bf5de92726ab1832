"""What sets the temperatures costs beside a fixed one: ``cost.json``, from whole runs that take turns.

Runs of Digits, as `rlkd distill` makes them, and of detection, with the settings of the comparison over nine tasks but
9 epochs. Some 15 minutes on a CPU core:

    OMP_NUM_THREADS=1 python docs/results/rule_cost/cost.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import yaml

import experiments
from experiments.config import DistillConfig
from experiments.session.prepare import prepare
from experiments.session.summary import complete

ROUNDS = {"digits": 9, "digits-detection": 3}
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
OF_DETECTION = (BASELINE, "anneal", "cosine", "ppo-anneal")
"""The arms that are made for detection, where a run takes a hundred times as long."""


def main() -> None:
    """Write the ratios of the CPU seconds of every arm and of the fixed temperature, over all rounds."""
    preset = Path(experiments.__file__).parent / "presets" / "compare" / "all.yaml"
    detection = yaml.safe_load(preset.read_text())["tasks"]["digits-detection"]
    tasks = {"digits": {}, "digits-detection": {**_settings(detection), "epochs": 9, "warmup_epochs": 1}}
    content: dict[str, Any] = {"rounds": ROUNDS}
    for task, settings in tasks.items():
        arms = ARMS if task == "digits" else {name: ARMS[name] for name in OF_DETECTION}
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(ROUNDS[task]):
            for arm, options in arms.items():
                seconds[arm].append(cpu_seconds(settings | options))
        content[task] = {arm: _ratios(of_arm, seconds[BASELINE]) for arm, of_arm in seconds.items()}
        (Path(__file__).parent / "cost.json").write_text(json.dumps(content, indent=2) + "\n")


def _settings(task: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a task without what a comparison alone reads."""
    known = DistillConfig.option_names()
    return {name: value for name, value in task.items() if name in known}


def _ratios(seconds: list[float], baseline: list[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(seconds, baseline, strict=True)]
    return {"cost_ratio": median(ratios), "cost_ratio_min": min(ratios), "cost_ratio_max": max(ratios)}


def cpu_seconds(settings: dict[str, Any]) -> float:
    """Return the CPU seconds of a run's updates, evaluations and records."""
    config = DistillConfig.from_keywords({**settings, "progress": False, "tensorboard": False, "device": "cpu"})
    return float(complete(prepare(config, writes=False))["cpu_seconds"])


if __name__ == "__main__":
    main()
