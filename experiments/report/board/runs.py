"""What the board tells of the runs of a folder, as plain values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.report.run.loading import RunRecord
from experiments.session.folder import CONFIG_FILE, LOCK_FILE, RUN, kind_of
from rlkd_env.errors import UsageError

_COLUMNS = ("validation_accuracy", "training_accuracy", "temperature_mean")


def run_folders(root: Path) -> dict[str, Path]:
    """Return the folders of runs in a folder, and in those in it, by their names relative to it; the newest first."""
    found = [path.parent for path in root.glob("**/" + CONFIG_FILE)]
    known = [folder for folder in found if _is_run(folder)]
    known.sort(key=lambda folder: -(folder / CONFIG_FILE).stat().st_mtime)
    return {str(folder.relative_to(root)): folder for folder in known}


def describe_run(name: str, folder: Path) -> dict[str, Any]:
    """Return a run's name, status, accuracies in percent and curves; of one that cannot be read, why not."""
    try:
        record = RunRecord.read(folder)
    except UsageError as error:
        return {"name": name, "status": "damaged", "error": str(error), "epochs": 0, "curves": {}}
    epochs = record.history["epoch"].astype(int).tolist()
    accuracies = {
        f"{who} {part}": record.percent(f"{who}_{key}_accuracy")
        for who in ("student", "teacher")
        for part, key in (("test", "test"), ("validation", "val"))
    }
    return {
        "name": name,
        "status": _status(record),
        "temperatures": record.chooser,
        "metric": record.metric,
        "epoch": epochs[-1] if epochs else 0,
        "epochs": record.config.get("epochs"),
        **{key: _finite(value) for key, value in accuracies.items()},
        "curves": {"epoch": epochs, **{column: _column(record, column) for column in _COLUMNS}},
    }


def _is_run(folder: Path) -> bool:
    try:
        return kind_of(folder) is RUN
    except UsageError:
        return False


def _status(record: RunRecord) -> str:
    if record.summary is not None:
        return "diverged" if record.summary.get("diverged") else "finished"
    lock = FileLock(record.folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "running"
    lock.release()
    return "stopped"


def _column(record: RunRecord, column: str) -> list[float | None]:
    if column == "temperature_mean" and not record.has_teacher:
        return [None] * len(record.history[column])
    scale = 100.0 if column.endswith("_accuracy") else 1.0
    return [_finite(scale * value) for value in record.history[column].tolist()]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
