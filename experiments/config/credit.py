"""Options of ``rlkd credit``."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.config.common import CommandConfig
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import Count, NonNegativeInt


@dataclass(frozen=True)
class CreditConfig(CommandConfig):
    """Measure how well each calibrator knows what an instance's temperature earned, and what it costs.

    At points of runs with random temperatures every instance's temperature is replaced by the reference, the update is
    made anew, and the probe loss is compared; the calibrators' credits are held against that truth.
    """

    run: RunConfig = field(default_factory=RunConfig)
    points: Count = 12
    """Updates of every run at which the credits are measured."""
    runs: Count = 4
    """Number of runs; the learned decomposition learns from all of them."""
    seed: NonNegativeInt = 0
    """Seed of the first run and of the temperatures."""
    out: str = "runs/credit"
    """Folder for credit.json and credit.png."""
    overwrite: bool = False
    """Replace the measurement in the folder."""
