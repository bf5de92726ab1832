"""``rlkd report``: a run or a comparison as one page that explains itself."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from experiments.compare.rows import COMPARISON_FILE
from experiments.config import ReportConfig
from experiments.next_command import tell_next
from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.page import comparison_page
from experiments.report.page import Page, write_page
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page
from experiments.session.folder import CONFIG_FILE, SUMMARY_FILE
from rlkd_env.errors import UsageError
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.utils.files import reading


def run_report(config: ReportConfig) -> int:
    """Write ``report.html`` and the figures beside it."""
    folder = Path(config.folder)
    page = _page(folder, None if config.credit is None else Path(config.credit))
    out = folder if config.out == "auto" else Path(config.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder")
    written = write_page(page, out)
    console = Console()
    for warning in page.warnings:
        console.print(warning, highlight=False, markup=False)
    told = f"written: {written[0]}, and {len(written) - 1} figures in {written[0].with_suffix('')}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    tell_next("rlkd", *_next(folder, page.kind))
    return 0


def _next(folder: Path, kind: str) -> list[str]:
    """Return how to go on with what was reported: a run that broke off goes on, the student of another is measured."""
    if kind == "comparison":
        return ["board", str(folder)]
    if not (folder / SUMMARY_FILE).exists():
        return ["distill", "--resume", "--out", str(folder)]
    return ["evaluate" if (folder / STUDENT_FILE).exists() else "validate", str(folder)]


def _page(folder: Path, credit: Path | None) -> Page:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder" if folder.exists() else f"{folder} does not exist")
    with reading(folder):
        if (folder / COMPARISON_FILE).exists():
            if credit is not None:
                raise UsageError("--credit belongs to the report of a run, not to that of a comparison")
            return comparison_page(ComparisonRecord.read(folder))
        if (folder / CONFIG_FILE).exists():
            return run_page(RunRecord.read(folder, credit))
    raise UsageError(f"{folder} holds neither a run ({CONFIG_FILE}) nor a comparison ({COMPARISON_FILE})")
