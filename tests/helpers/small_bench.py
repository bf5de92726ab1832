"""A bench that is over in a moment."""

from __future__ import annotations

from experiments.cli import parse
from experiments.config import BenchConfig


def bench_config(*arguments: str) -> BenchConfig:
    config = parse(["bench", "--device", "cpu", *arguments])
    assert isinstance(config, BenchConfig)
    return config
