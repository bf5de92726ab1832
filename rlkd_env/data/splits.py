"""Labelled images and their parts: what may train, reward, select and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes, in memory.

    Attributes:
        images: ``(n, channels, height, width)`` float32, ready for a network.
        labels: ``(n,)`` int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """Return the set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run may see; the test set is not among them.

    Attributes:
        train: gradients of the student.
        probe: rewards.
        validation: which student to keep.
        teacher_train: gradients of the teacher; contains ``train``.
        num_classes: number of classes C.
    """

    train: ImageSet
    probe: ImageSet
    validation: ImageSet
    teacher_train: ImageSet
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> Splits:
        """Return all parts on another device."""
        return Splits(
            self.train.to(device),
            self.probe.to(device),
            self.validation.to(device),
            self.teacher_train.to(device),
            self.num_classes,
        )


class DataSource(ABC):
    """A data set by name: its parts for a run and, apart from them, its test set.

    Attributes:
        default_teacher: name of the network that is trained as teacher when the user brings none.
        default_student: name of the student when the user names none.
    """

    default_teacher: str
    default_student: str

    @abstractmethod
    def splits(self) -> Splits:
        """Load what a run may see, always split the same way."""

    @abstractmethod
    def test_set(self) -> ImageSet:
        """Load the test set; for the one evaluation at the end, never for an environment."""
