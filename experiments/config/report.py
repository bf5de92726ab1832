"""Options of ``rlkd report``, ``rlkd export``, ``rlkd evaluate`` and ``rlkd board``, which read runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from experiments.config.common import CommandConfig, FileName, TrustConfig
from rlkd_env.utils.choices import ExportFormat
from rlkd_env.utils.options import Bounds


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


@dataclass(frozen=True)
class EvaluateConfig(CommandConfig):
    """Measure a run's student again, on its own data or on other data, and name the classes that it knows least."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Other data, as --data-path of rlkd distill takes them: an .npz file or a folder; None takes the run's own."""
    part: Literal["test", "validation", "train"] = "test"
    """Part of the data."""
    model: str | None = None
    """Network of the student, if it is one of your own (package.module:factory), whose code a file alone never runs."""
    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""
    trust: TrustConfig = field(default_factory=TrustConfig)


@dataclass(frozen=True)
class BoardConfig(CommandConfig):
    """Show the runs of a folder as a local web page: status, accuracies, and curves that grow while runs train."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")] = "runs"
    """Folder whose runs are shown, those in folders below it too."""
    port: Annotated[int, Bounds(at_least=0, at_most=65535)] = 8765
    """Port of this machine; 0 takes a free one. No other machine can reach it."""
