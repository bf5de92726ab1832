"""``rlkd evaluate``: how good the student of a run is, on its own data or on other data."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.config import DistillConfig, EvaluateConfig
from experiments.next_command import tell_next
from experiments.session.folder import SUMMARY_FILE, Summary
from rlkd_env.data import DataConfig, DataSource, ImageSet, create_source
from rlkd_env.errors import UsageError
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.models.engine import Engine, select_device
from rlkd_env.models.storage import image_shape_of, load_student
from rlkd_env.tasks import create_task
from rlkd_env.tasks.classification import Classification, measured
from rlkd_env.utils.files import expanded, read_json, reading

_WEAKEST = 5  # classes that are named


def run_evaluate(config: EvaluateConfig) -> int:
    """Print the accuracy on a part of the data and the classes that are recognised least, or a detector's AP."""
    folder = expanded(config.folder)
    summary = read_json(folder / SUMMARY_FILE, Summary)
    with reading(folder / SUMMARY_FILE):
        settings = DistillConfig.from_keywords(summary["settings"]).run.data
        constants = summary.get("normalization", {}).get("student", {})
    student, device = load_student(folder, config.model), select_device(config.device)
    source = create_source(_data(settings, config, constants))
    images = _part(source, config.part).to(device)
    if images.image_shape != (shape := image_shape_of(folder / STUDENT_FILE)) and source.task == "classification":
        raise UsageError(f"the student takes images {shape}, but these are {images.image_shape}")
    task, logits = create_task(source.task, Engine(device)), None
    if isinstance(task, Classification):
        logits = task.logits(student.to(device), images)
        found = measured(logits, images.labels)
    else:
        found = task.evaluate(student.to(device), images)
    told = f"{task.metric} {float(found.accuracy):.2%} on {len(images):,} {config.part} images"
    print(f"{folder}: {told}, mean loss {float(found.loss):.4f}")
    if logits is not None:
        _print_weakest(logits.argmax(dim=-1), images.labels)
    for name, value in found.details.items():
        print(f"  {name}: {value:.2%}")
    tell_next("rlkd", "export", str(folder))
    return 0


def _data(settings: DataConfig, config: EvaluateConfig, constants: dict[str, Any]) -> DataConfig:
    """Return the run's data, or other data that its student is to see as it has seen its own."""
    if config.data is None:
        return settings
    path = expanded(config.data)
    if not path.exists():
        raise UsageError(f"{path} does not exist: --data is an .npz file or a folder, such as --data-path takes")
    numbers = tuple(map(str, (*constants.get("mean", ()), *constants.get("std", ())))) or ("none",)
    if path.suffix == ".npz":
        return settings.replaced(dataset="arrays", data_path=str(path), normalization=numbers)
    if settings.dataset in ("digits", "digits_detection"):  # which come with a package, and have no path
        raise UsageError(f"a run on {settings.dataset} has no data path: other data must be an .npz file, not {path}")
    return settings.replaced(data_path=str(path))


def _part(source: DataSource, part: str) -> ImageSet:
    if part == "test":
        images = source.test_set()
        if images is None:
            raise UsageError("these data have no test images: choose --part validation or train")
        return images
    splits = source.splits()
    return splits.validation if part == "validation" else splits.train


def _print_weakest(predicted: Tensor, labels: Tensor) -> None:
    """Print a table of the classes ``(N,)`` with the lowest accuracy, and what they are taken for."""
    table = Table(title="the classes that are recognised least")
    for column in ("class", "images", "accuracy", "most often taken for"):
        table.add_column(column, justify="right")
    classes = labels.unique().tolist()
    shares = {one: float((predicted[labels == one] == one).float().mean()) for one in classes}
    for one in sorted(classes, key=lambda name: shares[name])[:_WEAKEST]:
        wrong = predicted[(labels == one) & (predicted != one)]
        other = str(int(wrong.mode().values)) if len(wrong) else "–"
        table.add_row(str(one), str(int((labels == one).sum())), f"{shares[one]:.2%}", other)
    Console().print(table)
