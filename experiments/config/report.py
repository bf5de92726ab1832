"""Options of ``rlkd report``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig, FileName


@dataclass(frozen=True)
class ReportConfig(CommandConfig):
    """Draw a run or a comparison: one HTML page that needs nothing else, and PNGs in a folder beside it."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_COMPARISON")]
    """Folder of a run (rlkd distill) or of a comparison (rlkd compare), finished or not."""
    out: str = "auto"
    """Folder for report.html and report/, its pictures; auto is the folder of the run or comparison."""
    credit: FileName = None
    """Measurement by rlkd credit (credit.json or its folder) that a run's report shows too; one in the run's folder is
    found without this option."""
