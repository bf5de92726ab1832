"""The parts of a data set: what may train, reward, select and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from rlkd_env.data.config import DataConfig
from rlkd_env.data.images import ImageSet
from rlkd_env.errors import UsageError

TaskName = Literal["classification", "detection"]

LARGEST_PART = 2500
"""Images of a part that only has to tell how good a network is, unless more are asked for."""


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run may see; the test set is not among them.

    Attributes:
        train: gradients of the student.
        probe: rewards.
        validation: which student to keep.
        teacher_train: gradients of the teacher; contains ``train``.
        num_classes: number of classes C.
        reserve: images of ``teacher_train``, at most 2,500, that the student does not train on; empty where it trains
            on all, and None where the source does not tell them.
    """

    train: ImageSet
    probe: ImageSet
    validation: ImageSet
    teacher_train: ImageSet
    num_classes: int
    reserve: ImageSet | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.image_shape

    def to(self, device: torch.device) -> Splits:
        """Return all parts on another device."""
        return Splits(
            self.train.to(device),
            self.probe.to(device),
            self.validation.to(device),
            self.teacher_train.to(device),
            self.num_classes,
            None if self.reserve is None else self.reserve.to(device),
        )


class DataSource(ABC):
    """A data set by name: its parts for a run and, apart from them, its test set.

    Args:
        config: what is asked of the data.

    Attributes:
        default_teacher: name of the teacher when the user names none.
        default_student: name of the student when the user names none.
        trains_its_teacher: whether a run without a teacher trains one first.
        teacher_recipe: fields of its :class:`~rlkd_env.training.teacher.TeacherRecipe` that are not the defaults.
        task: what the networks are to do, see :func:`~rlkd_env.tasks.create_task`.
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
        """Names of the C classes of objects, that of class 1 first; empty in classification."""
        return ()

    @abstractmethod
    def splits(self) -> Splits:
        """Load what a run may see, always split the same way."""

    @abstractmethod
    def test_set(self) -> ImageSet | None:
        """Load the test set, for the one evaluation at the end, never for an environment; None where there is none."""


class LabelledSource(DataSource):
    """A data set that comes as training and test images: the training images are split here, stratified by class."""

    @abstractmethod
    def training_images(self) -> tuple[ImageSet, int]:
        """Load all images that are not for testing or validation, and the number of classes."""

    def validation_set(self) -> ImageSet | None:
        """Load the validation images that the data comes with; None where they are drawn from the training images."""
        return None

    def splits(self) -> Splits:
        """Draw probe and validation images, then the student's, all from what is not for testing.

        Where the data set comes with validation images, they are those, or as many of them as are asked for.

        Raises:
            UsageError: if there are fewer images than the parts ask for.
        """
        images, num_classes = self.training_images()
        labels = images.labels.cpu().numpy()
        config, everything = self.config, np.arange(len(labels))
        probe_size = min(config.probe_size, len(labels) // 10)
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
        """Return the validation part, and which of some positions of training images it leaves to train on."""
        own = self.validation_set()
        if own is None:
            source, candidates, usual_size = images, positions, min(len(images) // 10, LARGEST_PART)
        else:
            source, candidates, usual_size = own, np.arange(len(own)), len(own)
        size = usual_size if self.config.validation_images is None else self.config.validation_images
        labels = source.labels.cpu().numpy()
        drawn, rest = stratified(candidates, labels, size, self.config.split_seed, "validation")
        return _part(source, drawn), rest if own is None else positions


def _part(images: ImageSet, positions: np.ndarray) -> ImageSet:
    return images.subset(torch.from_numpy(np.sort(positions)))


def stratified(
    positions: np.ndarray, labels: np.ndarray, size: int, seed: int, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a part with every class in its share.

    Args:
        positions: ``(m,)`` to draw from.
        labels: ``(n,)`` of the whole set.
        size: of the part.
        seed: of the draw.
        part: what it is, for the error message.

    Returns:
        The positions that were drawn and the rest.

    Raises:
        UsageError: if there are not that many.
    """
    if not 1 <= size <= len(positions):
        raise UsageError(f"the {part} part cannot have {size} images: {len(positions)} are there to draw from")
    if size == len(positions):
        return positions, positions[:0]
    classes, counts = np.unique(labels[positions], return_counts=True)
    fits = counts.min() >= 2 and min(size, len(positions) - size) >= len(classes)
    stratify = labels[positions] if fits else None  # too few images for every class to be in both
    drawn, rest = train_test_split(positions, train_size=size, stratify=stratify, random_state=seed)
    return drawn, rest
