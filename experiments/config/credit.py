"""Options of ``rlkd credit``."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.config.common import CommandConfig
from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import (
    LARGEST,
    Count,
    Seed,
)


@dataclass(frozen=True)
class CreditConfig(CommandConfig):
    """Measure how well each calibrator knows what an instance's temperature earned, and what it costs.

    At points of runs with random temperatures every instance's temperature is replaced by the reference, the update is
    made anew, and the probe loss is compared; the calibrators' credits are held against that truth. With ``--rewards``
    it measures how well each reward knows what an update has gained on up to 1,024 held-out images.
    """

    run: RunConfig = field(default_factory=RunConfig)
    points: Count = 12
    """Updates of every run at which the credits are measured."""
    runs: Count = 4
    """Number of runs; the learned decomposition learns from all of them."""
    rewards: bool = False
    """Measure the rewards in place of the calibrators."""
    seed: Seed = 0
    """Seed of the first run and of the temperatures."""
    out: str = "runs/credit"
    """Folder for credit.json and credit.png, or rewards.json and rewards.csv."""
    overwrite: bool = False
    """Replace the measurement in the folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed + self.runs - 1 > LARGEST:
            raise UsageError(f"seeds must be at most {LARGEST}, not {self.seed + self.runs - 1}")
