"""A command's folder: the names of its files, whether it may be written into, and who works in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from rlkd_env.errors import UsageError
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.training.recipe import TEACHER_FILE
from rlkd_env.utils.choices import Keep

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
HISTORY_FILE = "history.json"
TRACE_FILE = "trace.safetensors"
DETECTIONS_FILE = "detections.safetensors"
CREDIT_FILE = "credit.json"
REPORT_FILE = "report.html"
REPORT_FOLDER = "report"
EXPORT_FOLDER = "export"
LAST_STUDENT_FILE, BEST_STUDENT_FILE = "student_last.safetensors", "student_best.safetensors"
AGENT_FILE = "agent.json"
"""Says at which update an agent diverged, which resuming would repeat."""
POPULATION_FILE = "population.json"
MEMBERS_FOLDER = "members"
CHECKPOINT_FOLDER = "checkpoint"
_CURVES = "events.out.tfevents.*"
"""TensorBoard's files, which lie in the folder itself, because TensorBoard calls a run by their folder."""
_FORMER_CURVES = "tensorboard"
"""The folder in which runs of earlier versions have them."""
CARD_FILE = "teacher.json"
LOCK_FILE = ".lock"
"""Stays behind, because removing it could let two in."""
_POLICY_FILES = ("policy.safetensors", "policy.json", "policy.png")


class Candidate(TypedDict):
    """What may be kept of a population, and how good it is."""

    val_accuracy: float
    test_accuracy: float | None


class Member(TypedDict):
    """A student of a population."""

    name: str
    mean_temperature: float | None
    diverged: bool
    epoch: int
    val_accuracy: float
    test_accuracy: float | None
    last_val_accuracy: float
    last_test_accuracy: float | None


class PopulationFigures(TypedDict):
    """What a summary says of a population."""

    keep: Keep
    mode: str
    best: str
    candidates: dict[str, Candidate]
    members: list[Member]


class Normalization(TypedDict):
    """The constants that pixels are normalised by."""

    mean: list[float]
    std: list[float]


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
    student_best_sha256: str | None
    kept: str
    settings: dict[str, Any]
    objects: list[str]
    versions: dict[str, str]
    data: dict[str, int | None]
    population: PopulationFigures
    normalization: dict[str, Normalization]
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
    student_best_test_accuracy: float | None
    student_best_val_accuracy: float | None
    student_best_epoch: int | None
    student_alone_test_accuracy: float | None
    student_alone_val_accuracy: float | None
    student_alone_last_test_accuracy: float | None


@dataclass(frozen=True)
class FolderKind:
    """What a command leaves in its folder.

    Attributes:
        name: what is in there, for messages.
        option: an option that is in the ``config.json`` of this command and of no other.
        files: the names of its files but ``config.json``.
        folders: the names of its folders.
    """

    name: str
    option: str
    files: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def content(self) -> tuple[str, ...]:
        """All names, that of ``config.json`` last, which tells the kind as long as anything else is there."""
        return (*self.files, *self.folders, CONFIG_FILE)

    def paths(self, folder: Path) -> list[Path]:
        """Return what is there of the content, curves included, that of ``config.json`` last."""
        return [*folder.glob(_CURVES), *(folder / name for name in self.content if os.path.lexists(folder / name))]


RUN = FolderKind(
    "run",
    "student",
    (
        *(SUMMARY_FILE, HISTORY_FILE, TRACE_FILE, DETECTIONS_FILE, STUDENT_FILE),
        *(LAST_STUDENT_FILE, BEST_STUDENT_FILE),
        *(AGENT_FILE, POPULATION_FILE, REPORT_FILE, *_POLICY_FILES),
    ),
    (MEMBERS_FOLDER, REPORT_FOLDER, EXPORT_FOLDER, CHECKPOINT_FOLDER, _FORMER_CURVES),
)
"""Of ``rlkd distill``."""
TRAINING = FolderKind(
    "training of an agent", "instances", (SUMMARY_FILE, *_POLICY_FILES), (CHECKPOINT_FOLDER, _FORMER_CURVES)
)
"""Of ``rlkd train-agent``."""
TEACHER = FolderKind("teacher", "model", (TEACHER_FILE, CARD_FILE), (CHECKPOINT_FOLDER,))
"""Of ``rlkd teacher``."""


def kind_of(folder: Path) -> FolderKind | None:
    """Return what a folder holds, or None if no command has made it.

    Raises:
        UsageError: if the file that tells it cannot be read.
    """
    from rlkd_env.utils.files import read_json  # which imports PyTorch

    if (folder / CONFIG_FILE).exists():
        settings = read_json(folder / CONFIG_FILE)
    elif (folder / SUMMARY_FILE).exists():  # all that was copied of a comparison's run
        summary = read_json(folder / SUMMARY_FILE)
        settings = summary.get("settings") if isinstance(summary, dict) else None
    else:
        return TEACHER if (folder / CARD_FILE).exists() else None
    kinds = (RUN, TRAINING, TEACHER) if isinstance(settings, dict) else ()
    return next((kind for kind in kinds if kind.option in settings), None)


def check_folder(folder: Path, overwrite: bool, resume: bool, kind: FolderKind = RUN, holds_lock: bool = False) -> None:
    """Make sure that a command may write into a folder, and that nobody else does, without touching anything."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    if overwrite and resume:
        raise UsageError("--overwrite and --resume exclude each other")
    check_replaceable(folder, kind)
    is_begun = kind_of(folder) is kind
    if resume and not is_begun:
        raise UsageError(f"there is no {kind.name} to resume in {folder}")
    if is_begun and not overwrite and not resume:
        raise UsageError(
            f"{folder} holds another {kind.name}: add --overwrite to replace it or --resume to go on with it"
        )
    if not holds_lock and (folder / LOCK_FILE).exists():
        with locked(folder):
            pass


def check_measurement(file: Path, overwrite: bool) -> None:
    """Make sure that a measurement may be written to a file, without touching anything."""
    if file.exists() and not overwrite:
        raise UsageError(f"{file.parent} holds another measurement: add --overwrite to replace it")


@contextmanager
def measuring(file: Path, overwrite: bool) -> Iterator[None]:
    """Work alone in a measurement's folder, which is made if it is missing.

    Raises:
        UsageError: if there is a measurement already, or another process works there.
    """
    with locked(file.parent):
        check_measurement(file, overwrite)  # whoever had the folder until now may have written it
        yield


def check_replaceable(folder: Path, kind: FolderKind) -> None:
    """Check that all of a command's files in a folder are its own, and that they can be removed.

    Raises:
        UsageError: if the folder holds something else under one of their names, or may not be written.
    """
    present = kind.paths(folder)
    if not present:
        return
    found = kind_of(folder)
    if found is not kind:
        other = f"a {found.name}" if found else f"{present[0].name}, which no command of rlkd has made"
        raise UsageError(f"{folder} holds {other}, and that is not replaced by a {kind.name}: take another --out")
    for path in present:
        if not path.is_symlink() and path.is_dir() != (path.name in kind.folders):
            raise UsageError(f"{path} is not what a {kind.name} has there: move it away, or take another --out")
    trees = [path for path in present if path.is_dir() and not path.is_symlink()]
    for place in (folder, *(Path(found) for tree in trees for found, _, _ in os.walk(tree))):
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"{place} may not be written: nothing was removed")


def clear_folder(folder: Path, kind: FolderKind = RUN) -> None:
    """Delete the files of a command from a folder, and nothing else; of links only themselves.

    Raises:
        UsageError: if something is in the way, as :func:`check_replaceable` says; nothing has been removed then.
    """
    check_replaceable(folder, kind)
    for path in kind.paths(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder, which is made if it is missing, alone; one that was made goes again if the work fails at once.

    Raises:
        UsageError: if another process, or another run of this one, works there.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=1.0)  # another may just be looking whether it is free
    except Timeout:
        raise UsageError(f"another rlkd works in {folder}: wait for it, or take another --out") from None
    try:
        yield
    except BaseException:
        if is_new and [path.name for path in folder.iterdir()] == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()
        raise
    finally:
        lock.release()
