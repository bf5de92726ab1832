"""``rlkd teacher``: train a teacher and save it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from experiments.config import TeacherConfig
from experiments.versions import versions
from rlkd_env.config import select_device
from rlkd_env.data import DATASETS
from rlkd_env.files import write_json
from rlkd_env.models import check_model, file_stem
from rlkd_env.models.storage import save_network
from rlkd_env.registry import UsageError
from rlkd_env.tasks import Classification
from rlkd_env.teacher import TEACHER_FILE, TeacherRecipe, train_teacher


def run_teacher(config: TeacherConfig) -> int:
    """Train a teacher, evaluate it on the test set once, and write it with a card.

    Returns:
        The exit code 0.

    Raises:
        UsageError: if an option is invalid or the folder holds another teacher.
    """
    source = DATASETS[config.dataset]()
    model = source.default_teacher if config.model == "auto" else config.model
    check_model(model)  # an unknown name is told before anything else
    recipe = TeacherRecipe(model, config.epochs, config.batch_size, config.learning_rate, config.seed)
    default = f"teachers/{config.dataset}-{file_stem(model)}-seed{config.seed}"
    folder = Path(config.out if config.out != "auto" else default)
    path = folder / TEACHER_FILE
    if path.exists() and not config.overwrite:
        raise UsageError(f"{folder} holds another teacher: add --overwrite to replace it")
    device = select_device(config.device)
    splits = source.splits().to(device)
    started = time.perf_counter()
    with tqdm(total=config.epochs, desc="teacher", unit="epoch") as bar:

        def show(epoch: int, loss: float) -> None:
            bar.update(epoch - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        teacher = train_teacher(splits, recipe, show)
    task = Classification()
    validation = task.evaluate(teacher, splits.validation)
    test = task.evaluate(teacher, source.test_set().to(device))
    card = {
        "dataset": config.dataset,
        "recipe": asdict(recipe),
        "validation_accuracy": float(validation.accuracy),
        "test_accuracy": float(test.accuracy),
        "seconds": time.perf_counter() - started,
        "versions": versions(),
    }
    save_network(path, teacher.state_dict(), model, splits.num_classes, splits.image_shape)
    write_json(folder / "teacher.json", card)
    print(f"teacher {model} on {config.dataset}: validation {validation.accuracy:.2%}, test {test.accuracy:.2%}")
    print(f"use it with: rlkd distill --dataset {config.dataset} --teacher {folder}")
    return 0
