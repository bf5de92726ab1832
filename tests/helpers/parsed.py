"""The options of ``rlkd distill``, parsed."""

from __future__ import annotations

from experiments.cli import parse
from experiments.config import DistillConfig


def distill_config(*arguments: str) -> DistillConfig:
    config = parse(["distill", *arguments])
    assert isinstance(config, DistillConfig)
    return config
