"""A user's own torch ``Dataset``, given as ``package.module:factory``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from rlkd_env.data.images import ImageSet, Preprocessing
from rlkd_env.data.sources.arrays import as_labels
from rlkd_env.data.splits import LabelledSource
from rlkd_env.data.streamed import DatasetReader, StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.utils.registry import is_factory


class UserDataset(LabelledSource):
    """The Datasets that ``factory(train=True)`` and ``factory(train=False)`` return.

    Each is a Dataset of ``(image, label)`` whose images have one shape and are tensors (uint8, or ready for a network)
    or PIL images; without a test set the factory returns None for it. The Dataset applies its own transforms; random
    ones follow the run's seed if they draw from torch's generator. Labels are read from the attribute ``targets`` or
    ``labels``, otherwise from every item.
    """

    default_teacher = "resnet56"
    default_student = "resnet20"

    factory: Callable[..., Any]

    @classmethod
    def of(cls, factory: Any) -> type[UserDataset]:
        """Return the class for the Datasets of one factory.

        Raises:
            UsageError: if it is no function or class.
        """
        if not is_factory(factory):
            raise UsageError("no function or class that returns a Dataset")
        return type(cls.__name__, (cls,), {"factory": staticmethod(factory)})

    def training_images(self) -> tuple[ImageSet, int]:
        """Load the training images and the number of classes."""
        images = self._load(train=True)
        if images is None:
            raise UsageError(f"{self.config.dataset} returns no training images")
        return images, int(images.labels.max()) + 1

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        return self._load(train=False)

    def _load(self, train: bool) -> ImageSet | None:
        try:
            dataset: Dataset[Any] | None = self.factory(train=train)
            if dataset is None:
                return None
            if not hasattr(type(dataset), "__getitem__") or isinstance(dataset, str | bytes | Mapping):
                raise TypeError(f"it returned a {type(dataset).__name__}")
            size = len(dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise UsageError(
                f"{self.config.dataset} must take train=True or train=False and return a Dataset with a length: {error}"
            ) from None
        if size == 0:
            raise UsageError(f"{self.config.dataset} returns an empty Dataset")
        labels = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
        if labels is None:
            labels = [int(dataset[position][1]) for position in range(size)]
        checked = as_labels(np.asarray(labels), size, f"the labels of {self.config.dataset}")
        reader = DatasetReader(dataset)
        return StreamedImages(reader, torch.arange(size), checked, Preprocessing(), self.config.workers)
