"""``rlkd teacher``: train a teacher and save it."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from typing import Any

import torch

from experiments.config import TeacherConfig
from experiments.next_command import distill_words, tell_next
from experiments.session.checkpoints import check_fingerprints, load_checkpoint, save_checkpoint
from experiments.session.folder import (
    CARD_FILE,
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    TEACHER,
    check_folder,
    clear_folder,
    locked,
)
from experiments.session.provenance import versions
from experiments.signals import StopRequest, exit_code, tell_stop
from rlkd_env.data import DataSource, ImageSet, Splits, create_source
from rlkd_env.data.augmentation import check_changes
from rlkd_env.models import check_model
from rlkd_env.models.engine import select_device
from rlkd_env.models.storage import save_network
from rlkd_env.training.progress import progress_bar
from rlkd_env.training.recipe import TEACHER_FILE
from rlkd_env.training.teacher import TeacherTraining
from rlkd_env.utils.files import reading, remove_leftovers, write_json
from rlkd_env.utils.trust import MODULE_PATH


def run_teacher(config: TeacherConfig) -> int:
    """Train a teacher, evaluate it on the test set once, and write it with a card."""
    recipe = config.recipe()
    check_model(recipe.model)  # an unknown name is told before anything else
    if _is_finished(config):
        return 0
    source = create_source(config.data)
    device = select_device(config.output.device)
    splits = source.splits().to(device)
    check_changes(config.data, splits.train.preprocessing.changes)
    training = TeacherTraining(splits, recipe, source.task, config.output.capture)
    with locked(config.folder):
        if _is_finished(config, holds_lock=True):
            return 0
        return _train(config, source, training, splits)


def _train(config: TeacherConfig, source: DataSource, training: TeacherTraining, splits: Splits) -> int:
    """Make the training, or what is left of it, and write the teacher."""
    recipe, folder, output = training.recipe, config.folder, config.output
    task, device = training.task, splits.train.labels.device
    history: list[dict[str, float]] = []
    seconds = 0.0
    remove_leftovers(folder)
    checkpoint = load_checkpoint(folder / CHECKPOINT_FOLDER) if output.resume else None
    known = {"train": splits.teacher_train.fingerprint(), "validation": splits.validation.fingerprint()}
    if checkpoint is not None:
        check_fingerprints(checkpoint.get("fingerprints", {}), known, folder)
        with reading(folder / CHECKPOINT_FOLDER):
            training.load_state_dict(checkpoint["run"])
            history, seconds = checkpoint["history"], checkpoint["seconds"]
    else:
        clear_folder(folder, TEACHER)
        write_json(folder / CONFIG_FILE, config.settings())
    started = last_checkpoint = time.monotonic()

    def save() -> None:
        so_far = {"history": history, "seconds": seconds + time.monotonic() - started}
        state = {"run": training.state_dict(), "fingerprints": known, **so_far}
        save_checkpoint(folder / CHECKPOINT_FOLDER, state)

    stop = StopRequest()
    with (
        progress_bar("teacher", "epoch", recipe.epochs, output.progress, initial=training.epoch) as bar,
        stop.listening(),
    ):
        while not training.finished:
            loss = training.run_epoch(is_stopped=stop.__bool__)
            if loss is None:
                save()
                break
            with training.averaged():
                accuracy = float(task.evaluate(training.network, splits.validation).accuracy)
            history.append({"loss": loss, "validation_accuracy": accuracy})
            bar.set_postfix(loss=f"{loss:.4f}", validation=f"{accuracy:.2%}", refresh=False)
            bar.update()
            if time.monotonic() - last_checkpoint >= output.checkpoint_seconds:
                save()
                last_checkpoint = time.monotonic()
    if not training.finished:
        tell_stop(f"interrupted in epoch {training.epoch + 1}; go on with: rlkd teacher --resume --out {folder}")
        return exit_code(stop.error())
    seconds += time.monotonic() - started
    test = source.test_set()
    with training.averaged():
        test_figures = _test_figures(training, test, device)
        network, normalization = training.network.state_dict(), splits.train.normalization
        of_data = (splits.num_classes, splits.image_shape)
        save_network(folder / TEACHER_FILE, network, recipe.model, *of_data, recipe.model_options, normalization)
    card = {
        "dataset": config.data.dataset,
        "data": asdict(config.data),
        "recipe": asdict(recipe),
        "validation_accuracy": history[-1]["validation_accuracy"],
        "metric": task.metric,
        **test_figures,
        "seed": recipe.seed,
        "seconds": seconds,
        "history": history,
        "versions": versions(),
    }
    write_json(folder / CARD_FILE, card)
    shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)
    _tell(config, card)
    return 0


def _is_finished(config: TeacherConfig, holds_lock: bool = False) -> bool:
    """Check that a training may write into its folder; tell it and return True if there is nothing left to train."""
    folder, output = config.folder, config.output
    check_folder(folder, output.overwrite, output.resume, TEACHER, holds_lock)
    is_finished = output.resume and (folder / TEACHER_FILE).exists()
    if is_finished:
        print(f"the teacher in {folder} is finished already")
        tell_next(*distill_command(config))
    return is_finished


def _test_figures(training: TeacherTraining, test: ImageSet | None, device: torch.device) -> dict[str, Any]:
    if test is None:
        return {"test_accuracy": None}
    evaluation = training.task.evaluate(training.network, test.to(device))
    return {"test_accuracy": float(evaluation.accuracy), "test_details": evaluation.details}


def _tell(config: TeacherConfig, card: dict[str, Any]) -> None:
    test = "no test set" if card["test_accuracy"] is None else f"test {card['test_accuracy']:.2%}"
    print(
        f"teacher {card['recipe']['model']} on {config.data.dataset}, {card['metric']}: "
        f"validation {card['validation_accuracy']:.2%}, {test}"
    )
    tell_next(*distill_command(config))


def distill_command(config: TeacherConfig) -> list[str]:
    """Return the words of the command that distils from a teacher: on the same data, prepared in the same way."""
    added = {"teacher": str(config.folder)}
    if MODULE_PATH.fullmatch(config.training.model):  # whose code the teacher's file alone never runs
        added["teacher_model"] = config.training.model
    return distill_words(config.data.as_keywords(), config.output.preset, **added)
