"""Options of ``rlkd report`` and ``rlkd export``, which read a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig, FileName
from rlkd_env.utils.choices import ExportFormat


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


@dataclass(frozen=True)
class ExportConfig(CommandConfig):
    """Write a run's student in a form that needs nothing of this package, check it, and describe it in a model card."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    format: ExportFormat = "torch-export"
    """Form of the student: torch-export (a .pt2 file of the network itself), onnx, or state-dict (a .pth file of the
    weights)."""
    model: str | None = None
    """Network of the student, if it is one of your own (package.module:factory), whose code a file alone never runs."""
    licence: str = "not stated"
    """Licence that the model card states; that of data and teacher bind it, too."""
    out: str = "auto"
    """Folder for the file and MODEL_CARD.md; auto is the folder export in that of the run."""
    overwrite: bool = False
    """Replace a file of the same form in the folder, and a MODEL_CARD.md that somebody has changed."""
