"""Data sources and how their images are split into parts for training, rewards, selection and testing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch

from rlkd_env.data.config import USUAL_PROBE, DataConfig
from rlkd_env.data.images import ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.utils.notices import tell

TaskName = Literal["classification", "detection"]
Part = Literal["train", "validation", "test"]
"""A part of a data set as its files tell it apart."""

LARGEST_PART = 2500
"""The default size of a part that only measures how good a network is."""


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run may see; the test set is not among them.

    Attributes:
        train: The images that the student trains on.
        probe: The images that rewards are measured on.
        validation: The images by which the student to keep is chosen.
        teacher_train: The images that the teacher trains on; contains ``train``.
        num_classes: The number of classes C.
        reserve: At most 2,500 images of ``teacher_train`` that the student does not train on, possibly none; None if
            the source does not provide them.
    """

    train: ImageSet
    probe: ImageSet
    validation: ImageSet
    teacher_train: ImageSet
    num_classes: int
    reserve: ImageSet | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""
        return self.train.image_shape

    def to(self, device: torch.device) -> Splits:
        """Return all parts on another device."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: part.to(device) for name, part in parts.items() if isinstance(part, ImageSet)}
        return replace(self, **moved)


class DataSource(ABC):
    """A data set: its parts for a run and, separately, its test set.

    Loading raises a ``UsageError`` if the data are missing or damaged, or have fewer images than the parts need.

    Attributes:
        default_teacher: The name of the teacher if the user names none.
        default_student: The name of the student if the user names none.
        trains_its_teacher: Whether a run without a teacher trains one first.
        teacher_recipe: The fields of that teacher's :class:`~rlkd_env.training.teacher.TeacherRecipe` that differ from
            its defaults.
        task: The task of the networks, see :func:`~rlkd_env.tasks.create_task`.
    """

    default_teacher: str
    default_student: str
    trains_its_teacher = False
    teacher_recipe: Mapping[str, Any] = {}
    task: TaskName = "classification"

    def __init__(self, config: DataConfig | None = None) -> None:
        self.config = config or DataConfig()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the C object classes, starting with class 1; empty in classification."""
        return ()

    @abstractmethod
    def splits(self) -> Splits:
        """Load the parts that a run may see; the same at every call."""

    @abstractmethod
    def test_set(self) -> ImageSet | None:
        """Load the test set, which is only for the evaluation at the end, or None if there is none."""


class LabelledSource(DataSource):
    """A data set of training and test images; its training images are split here, stratified by class."""

    @abstractmethod
    def training_images(self) -> tuple[ImageSet, int]:
        """Load all images that are not for testing or validation, and the number of classes."""

    def validation_set(self) -> ImageSet | None:
        """Load the data's own validation images, or None if they are to be drawn from the training images."""
        return None

    def splits(self) -> Splits:
        """Draw the parts from the training images.

        If the data set has validation images of its own, those are used, or as many of them as were asked for.
        """
        images, num_classes = self.training_images()
        labels = images.labels.cpu().numpy()
        if self.task == "classification":
            _check_classes(labels, num_classes)
        config, everything = self.config, np.arange(len(labels))
        probe_size = min(config.probe_size or USUAL_PROBE, len(labels) // 10)
        probe, rest = stratified(everything, labels, probe_size, config.split_seed, "probe")
        validation, rest = self._validation(images, rest)
        teacher_train, _ = stratified(rest, labels, config.teacher_images or len(rest), config.split_seed, "teacher")
        train_size = config.train_images or len(teacher_train)
        train, reserve = stratified(teacher_train, labels, train_size, config.split_seed, "training")
        return Splits(
            train=_part(images, train),
            probe=_part(images, probe),
            validation=validation,
            teacher_train=_part(images, teacher_train),
            num_classes=num_classes,
            reserve=_part(images, reserve[:LARGEST_PART]),
        )

    def _validation(self, images: ImageSet, positions: np.ndarray) -> tuple[ImageSet, np.ndarray]:
        """Return the validation part and those of the positions of training images that it leaves for training."""
        own = self.validation_set()
        if own is None:
            source, candidates, usual_size = images, positions, min(len(images) // 10, LARGEST_PART)
        else:
            source, candidates, usual_size = own, np.arange(len(own)), len(own)
        size, labels = self.config.validation_images or usual_size, source.labels.cpu().numpy()
        drawn, rest = stratified(candidates, labels, size, self.config.split_seed, "validation")
        return _part(source, drawn), rest if own is None else positions


def _check_classes(labels: np.ndarray, num_classes: int) -> None:
    if num_classes < 2:
        raise UsageError("the training images are all of one class: there is nothing to tell apart")
    empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(empty):
        few = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
        hint = ", and labels that count from 1 make one class too many" if empty[0] == 0 else ""
        tell(
            f"no training image is of the class {few}, which networks learn to tell all the same: classes count from 0 "
            f"to {num_classes - 1}{hint}"
        )


def _part(images: ImageSet, positions: np.ndarray) -> ImageSet:
    return images.subset(torch.from_numpy(np.sort(positions)))


def stratified(
    positions: np.ndarray, labels: np.ndarray, size: int, seed: int, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a part in which every class has its share, and return it with the rest.

    The ``size`` positions are drawn from ``(m,)``; the labels ``(n,)`` are those of the whole set. ``part`` names it in
    the message.
    """
    if not 1 <= size <= len(positions):
        raise UsageError(f"the {part} part cannot have {size} images: {len(positions)} are there to draw from")
    if size == len(positions):
        return positions, positions[:0]
    from sklearn.model_selection import train_test_split  # scikit-learn takes as long to import as PyTorch

    classes, counts = np.unique(labels[positions], return_counts=True)
    fits = counts.min() >= 2 and min(size, len(positions) - size) >= len(classes)
    stratify = labels[positions] if fits else None  # too few images for every class to be in both parts
    drawn, rest = train_test_split(positions, train_size=size, stratify=stratify, random_state=seed)
    return drawn, rest
