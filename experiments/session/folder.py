"""A run's folder: the names of its files, and whether a run may write into it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TypedDict

from rlkd_env.errors import UsageError
from rlkd_env.models.config import STUDENT_FILE

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
HISTORY_FILE = "history.json"
TRACE_FILE = "trace.safetensors"
DETECTIONS_FILE = "detections.safetensors"
CREDIT_FILE = "credit.json"
REPORT_FILE = "report.html"
REPORT_FOLDER = "report"
EXPORT_FOLDER = "export"
LAST_STUDENT_FILE = "student_last.safetensors"
AGENT_FILE = "agent.json"
"""Says at which update an agent diverged, which resuming would repeat."""
POPULATION_FILE = "population.json"
MEMBERS_FOLDER = "members"
CHECKPOINT_FOLDER = "checkpoint"
TENSORBOARD_FOLDER = "tensorboard"
_CONTENT = [CONFIG_FILE, SUMMARY_FILE, HISTORY_FILE, TRACE_FILE, DETECTIONS_FILE, STUDENT_FILE, LAST_STUDENT_FILE]
_CONTENT += [
    AGENT_FILE,
    POPULATION_FILE,
    MEMBERS_FOLDER,
    REPORT_FILE,
    REPORT_FOLDER,
    EXPORT_FOLDER,
    CHECKPOINT_FOLDER,
    TENSORBOARD_FOLDER,
]
_CONTENT += ["policy.safetensors", "policy.json", "policy.png"]


class Summary(TypedDict, total=False):
    """The figures and settings of a finished run that others read from its folder; older runs lack some."""

    dataset: str
    metric: str
    student: str
    method: str
    temperature_from: str
    config_hash: str
    device: str
    processor: str
    student_sha256: str | None
    student_last_sha256: str | None
    settings: dict[str, Any]
    objects: list[str]
    versions: dict[str, str]
    data: dict[str, int | None]
    population: dict[str, Any]
    student_epoch: int | None
    steps: int
    epochs: int
    seed: int
    threads: int
    processes: int
    diverged: bool
    mean_temperature: float | None
    seconds: float
    cpu_seconds: float
    environment_seconds: float
    agent_seconds: float
    evaluation_seconds: float
    logging_seconds: float
    checkpoint_seconds: float
    step_ms: float | None
    fixed_step_ms: float | None
    teacher_test_accuracy: float | None
    student_test_accuracy: float | None
    student_val_accuracy: float | None
    student_last_test_accuracy: float | None
    student_last_val_accuracy: float | None
    student_alone_test_accuracy: float | None
    student_alone_val_accuracy: float | None
    student_alone_last_test_accuracy: float | None


def check_folder(folder: Path, overwrite: bool, resume: bool) -> None:
    """Make sure that a run may write into a folder, without touching anything."""
    holds_run = (folder / CONFIG_FILE).exists()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    if overwrite and resume:
        raise UsageError("--overwrite and --resume exclude each other")
    if resume and not holds_run:
        raise UsageError(f"there is no run to resume in {folder}")
    if holds_run and not overwrite and not resume:
        raise UsageError(f"{folder} holds another run: add --overwrite to replace it or --resume to go on with it")


def clear_folder(folder: Path) -> None:
    """Delete the files of a run from a folder, and nothing else."""
    for name in _CONTENT:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
