"""Teachers: training, loading, and the cache of those that data sets train by themselves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import nn

from rlkd_env.data import BatchStream, Splits
from rlkd_env.models import create_model, file_stem
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.registry import UsageError

TEACHER_FILE = "teacher.safetensors"


@dataclass(frozen=True)
class TeacherRecipe:
    """How a teacher is trained: Adam with a cosine schedule on the cross-entropy.

    Args:
        model: name of the network.
        epochs: passes over the teacher's training images.
        batch_size: images an update.
        learning_rate: at the start; falls to zero along a cosine.
        seed: of initialisation and order.

    Raises:
        UsageError: if a number is out of its range.
    """

    model: str
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"the number of epochs must be at least 1, not {self.epochs}")
        if not self.learning_rate > 0:
            raise UsageError(f"the learning rate must be positive, not {self.learning_rate:g}")


def train_teacher(
    splits: Splits, recipe: TeacherRecipe, on_epoch: Callable[[int, float], None] | None = None
) -> nn.Module:
    """Train a teacher on ``splits.teacher_train``, on the device that the splits are on.

    Args:
        splits: the data.
        recipe: network and training.
        on_epoch: called after every epoch with its number, from 1, and its mean loss.

    Returns:
        The teacher in evaluation mode.
    """
    device = splits.train.labels.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        teacher = create_model(recipe.model, splits.num_classes, splits.image_shape).to(device).train()
        stream = BatchStream(splits.teacher_train, recipe.batch_size, recipe.seed)
        optimizer = torch.optim.Adam(teacher.parameters(), recipe.learning_rate)
        total_steps = recipe.epochs * stream.batches_per_epoch
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
        losses = []
        for step in range(total_steps):
            batch = stream.batch(step)
            loss = F.cross_entropy(teacher(batch.images), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            if on_epoch is not None and (step + 1) % stream.batches_per_epoch == 0:
                on_epoch((step + 1) // stream.batches_per_epoch, torch.stack(losses).mean().item())
                losses.clear()
    return teacher.eval()


def load_teacher(path: Path, splits: Splits, model: str | None = None) -> nn.Module:
    """Read a teacher for this data: a network's file, or ``teacher.safetensors`` in a folder.

    Args:
        path: of the file or folder.
        splits: the data.
        model: name of the network, for files that :func:`~rlkd_env.models.storage.load_network` needs it for.

    Returns:
        The teacher in evaluation mode, on the splits' device.

    Raises:
        UsageError: if the file is missing, damaged or no network, or the network is for other classes or images, or
            has to be named.
    """
    path = path / TEACHER_FILE if path.is_dir() else path
    return load_network(path, splits.num_classes, splits.image_shape, model).to(splits.train.labels.device)


def cached_teacher(
    dataset: str, splits: Splits, recipe: TeacherRecipe, on_epoch: Callable[[int, float], None] | None = None
) -> nn.Module:
    """Return the teacher of this data set and recipe, trained at the first call and cached for the next ones.

    The cache is the folder that the environment variable ``RLKD_CACHE`` names, else ``~/.cache/rlkd``.
    Processes that ask at the same time wait for the one that trains.
    """
    folder = Path(os.environ.get("RLKD_CACHE") or Path.home() / ".cache" / "rlkd")
    # The images are part of the key, so that a changed split never meets a teacher that has seen its test set.
    content = hashlib.sha256(json.dumps([dataset, asdict(recipe)]).encode())
    content.update(splits.teacher_train.images.cpu().numpy().tobytes())
    path = folder / f"teacher-{dataset}-{file_stem(recipe.model)}-{content.hexdigest()[:12]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            try:
                return load_teacher(path, splits, recipe.model)
            except UsageError:
                path.unlink()
        teacher = train_teacher(splits, recipe, on_epoch)
        save_network(path, teacher.state_dict(), recipe.model, splits.num_classes, splits.image_shape)
    return teacher
