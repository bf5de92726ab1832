"""Teachers: how they are trained and loaded, and the cache of those that data sets train by themselves."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import nn

from rlkd_env.data import BatchStream, MemoryImages, Splits, TaskName
from rlkd_env.data.normalization import Constants
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, file_stem
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.models.engine import choose_engine
from rlkd_env.models.outputs import check_batch_of_one
from rlkd_env.models.storage import load_network, normalization_of, save_network
from rlkd_env.tasks import create_task
from rlkd_env.training.batches_ahead import BatchesAhead
from rlkd_env.training.captured.own_loss import CapturedOwnLossUpdate
from rlkd_env.training.own_loss import OwnLossUpdate
from rlkd_env.training.recipe import TEACHER_FILE, TeacherRecipe
from rlkd_env.training.update import Optimization
from rlkd_env.utils.choices import MemoryFormat
from rlkd_env.utils.notices import tell
from rlkd_env.utils.randomness import seeded

Made = TypeVar("Made")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
"""How files of weights end."""
SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the teachers that come with the package, under their names in the cache."""
_FILES = (TEACHER_FILE, STUDENT_FILE, "model.safetensors", "pytorch_model.bin")
"""What a teacher's file in a folder is called: a teacher's own, a former student's, or HuggingFace's names."""


class TeacherTraining:
    """A teacher in training on ``splits.teacher_train``, on the device of the splits.

    Args:
        splits: the images.
        recipe: the network, and how it is trained.
        task: what it is trained for.
        capture: capture updates as CUDA graphs where a GPU can.
    """

    def __init__(
        self, splits: Splits, recipe: TeacherRecipe, task: TaskName = "classification", capture: bool = True
    ) -> None:
        if task == "detection":
            recipe.check_detection()
        self.recipe = recipe
        self.epoch = 0
        self._losses: list[torch.Tensor] = []
        self._device = splits.train.labels.device
        drawn: dict[str, Any] = {"mixing": recipe.mixing, "class_balanced": recipe.class_balanced}
        self._stream = BatchStream(splits.teacher_train, recipe.batch_size, recipe.seed, **drawn)
        with seeded(recipe.seed, self._device):
            shape, options = splits.image_shape, recipe.model_options
            self.network = create_model(recipe.model, splits.num_classes, shape, **options).to(self._device)
        if recipe.batch_size == 1:
            check_batch_of_one(self.network, splits.train.take(torch.arange(1)), "teacher")
        first = splits.teacher_train.take(torch.arange(min(4, len(splits.teacher_train))))
        memory_format: MemoryFormat = "contiguous" if recipe.precision == "float32" else "auto"
        engine = choose_engine(self._device, self.network, recipe.precision, memory_format, capture, first)
        self.task = create_task(task, engine, recipe.proposals, recipe.auxiliary_weight, recipe.label_smoothing)
        engine.prepare(self.network)
        total_steps = recipe.epochs * self._stream.batches_per_epoch
        trained = list(self.network.parameters())
        self._optimization = Optimization(recipe, trained, total_steps, network=self.network)
        self.update = self._create_update()
        draws_ahead = self.update.why_plain is None and isinstance(splits.teacher_train, MemoryImages)
        self._draw_batch = BatchesAhead(self._stream).batch if draws_ahead else self._stream.batch

    @property
    def finished(self) -> bool:
        """Whether all epochs are over."""
        return self.epoch >= self.recipe.epochs

    def run_epoch(self, is_stopped: Callable[[], bool] = lambda: False) -> float | None:
        """Train for what is left of an epoch; return its mean loss in nats, or None if it was stopped before its end.

        Args:
            is_stopped: asked before every update.

        Raises:
            UsageError: if the training has diverged.
        """
        self.network.train()
        first_step = self.epoch * self._stream.batches_per_epoch
        for step in range(first_step + len(self._losses), first_step + self._stream.batches_per_epoch):
            if is_stopped():
                return None
            self._losses.append(self.update(self._draw_batch(step), step))
        self.epoch += 1
        mean = float(torch.stack(self._losses).mean())
        self._losses = []
        if not math.isfinite(mean):
            raise UsageError(f"the teacher's training diverged in epoch {self.epoch}: try a lower learning rate")
        return mean

    def averaged(self) -> AbstractContextManager[None]:
        """Let the network have the average of its weights, if the recipe keeps one, to be evaluated and saved."""
        return self._optimization.averaged()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the training depends on, as tensors and plain values."""
        losses = [float(loss) for loss in self._losses]
        state = {"epoch": self.epoch, "losses": losses, "network": self.network.state_dict()}
        return {**state, **self._optimization.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`, bit for bit on a CPU."""
        self.epoch = state["epoch"]
        self._losses = [torch.tensor(loss, device=self._device) for loss in state.get("losses", [])]
        self.network.load_state_dict(state["network"])
        self._optimization.load_state_dict(state)
        self.update = self._create_update()  # what was captured reads the former state's memory

    def _create_update(self) -> OwnLossUpdate:
        kind = CapturedOwnLossUpdate if self.task.engine.captured else OwnLossUpdate
        return kind(self.task, self.network, self._optimization, self.recipe.seed)


def train_teacher(
    splits: Splits,
    recipe: TeacherRecipe,
    on_epoch: Callable[[int, int, float], None] | None = None,
    task: TaskName = "classification",
) -> nn.Module:
    """Train a teacher to evaluation mode.

    After each epoch ``on_epoch`` gets its number, from 1, the number of all epochs, and the mean loss.
    """
    training = TeacherTraining(splits, recipe, task)
    while not training.finished:
        loss = training.run_epoch()
        if on_epoch is not None and loss is not None:
            on_epoch(training.epoch, recipe.epochs, loss)
    with training.averaged():
        return copy.deepcopy(training.network).eval() if recipe.ema_decay else training.network.eval()


def load_teacher(path: Path, splits: Splits, model: str | None = None, **options: Any) -> nn.Module:
    """Read a teacher for this data from a network's file, or from that in a folder, in evaluation mode.

    In a folder, that is the teacher of ``rlkd teacher``, the student of a run, a file as HuggingFace names it, or the
    only file of weights. The model need only be named for files that
    :func:`~rlkd_env.models.storage.load_network` needs its name for.
    """
    file = _file_of(path)
    if path.is_dir() and file.name not in _FILES:
        tell(f"the teacher in {path} is {file.name}, its only file of weights")
    network = load_network(file, splits.num_classes, splits.image_shape, model, **options)
    return network.to(splits.train.labels.device)


def trained_normalization(path: Path) -> Constants | None:
    """Return the mean and standard deviation that a teacher in a file or folder was trained with, if that says so."""
    return normalization_of(_file_of(path))


def _file_of(path: Path) -> Path:
    """Return the file of a teacher that is a file or a folder."""
    if not path.is_dir():
        return path
    usual = [path / name for name in _FILES if (path / name).is_file()]
    if usual:
        return usual[0]
    others = sorted(other for other in path.iterdir() if other.suffix in _SUFFIXES and other.is_file())
    if len(others) == 1:
        return others[0]
    held = f"it holds {', '.join(other.name for other in others[:5])}: name one of them" if others else "it holds none"
    raise UsageError(f"the folder {path} should hold a teacher's weights, but {held}")


def cache_folder() -> Path:
    """Return, and make, the folder that the environment variable ``RLKD_CACHE`` names, else ``~/.cache/rlkd``."""
    folder = Path(os.environ.get("RLKD_CACHE") or Path.home() / ".cache" / "rlkd")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(path: Path, what: str, read: Callable[[Path], Made], make: Callable[[Path], Made]) -> Made:
    """Return what a file of the cache holds, or make it and the file; ``what`` names it for messages.

    Processes that ask at the same time wait for the one that makes it, and say so. A damaged file is made anew, with a
    line. In a cache that cannot be written to a file is read as it is.
    """
    if path.is_file() and not os.access(path.parent, os.W_OK):
        return read(path)
    with locked(path, what):
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink()
        if path.is_file():
            try:
                return read(path)
            except UsageError as error:
                tell(f"the cached {what} is made anew: {error}")
                path.unlink()
        return make(path)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file in the cache; say so if another process has it."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"another process makes the {what} {path}, or reads it: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def cached_teacher(
    splits: Splits,
    recipe: TeacherRecipe,
    on_epoch: Callable[[int, int, float], None] | None = None,
    task: TaskName = "classification",
) -> nn.Module:
    """Return the teacher of these images and this recipe, trained at the first call and then in the cache.

    Those of the embedded data sets come with the package (:data:`SHIPPED`).
    """
    # The images are part of the key, so that a changed split never meets a teacher that has seen its test set.
    content = hashlib.sha256(json.dumps(recipe.as_key()).encode())
    content.update(splits.teacher_train.fingerprint().encode())
    name = f"teacher-{file_stem(recipe.model)}-{content.hexdigest()[:12]}.safetensors"
    if (SHIPPED / name).is_file():
        return load_teacher(SHIPPED / name, splits, recipe.model)

    def make(path: Path) -> nn.Module:
        tell(f"training the teacher {recipe.model}, once: it is kept in {path.parent}")
        teacher = train_teacher(splits, recipe, on_epoch, task)
        of_data = (splits.num_classes, splits.image_shape)
        save_network(path, teacher.state_dict(), recipe.model, *of_data, recipe.model_options)
        return teacher

    return cached(cache_folder() / name, "teacher", lambda path: load_teacher(path, splits, recipe.model), make)
