"""A training of a policy that is over in a moment."""

from __future__ import annotations

from pathlib import Path

from experiments.cli import main

QUICK = ("--no-progress", "--device", "cpu", "--num-runs", "4", "--population", "4", "--run-mode", "stacked")


def train(instances: Path, out: Path, *options: str, updates: int = 2) -> int:
    given = ("--instances", str(instances), "--out", str(out), "--updates", str(updates), "--sweep", "2", "4", "1s")
    return main(["train-agent", *given, *QUICK, *options])
