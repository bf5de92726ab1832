"""Options of ``rlkd credit``."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlkd_env.runs.config import RunConfig


@dataclass(frozen=True)
class CreditConfig:
    """Measure how well each calibrator knows what an instance's temperature earned, and what it costs.

    At points of runs with random temperatures every instance's temperature is replaced by the reference, the update is
    made anew, and the probe loss is compared; the calibrators' credits are held against that truth.
    """

    run: RunConfig = field(default_factory=RunConfig)
    points: int = 12
    """Updates of every run at which the credits are measured."""
    runs: int = 4
    """Number of runs; the learned decomposition learns from all of them."""
    seed: int = 0
    """Seed of the first run and of the temperatures."""
    out: str = "runs/credit"
    """Folder for credit.json and credit.png."""
    overwrite: bool = False
    """Replace the measurement in the folder."""
