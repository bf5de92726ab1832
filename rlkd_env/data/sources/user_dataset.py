"""A torch ``Dataset`` of the user's own, named by where it is found in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from rlkd_env.data.config import DataConfig
from rlkd_env.data.images import ImageSet, Preprocessing
from rlkd_env.data.sources.arrays import as_labels
from rlkd_env.data.splits import LabelledSource
from rlkd_env.data.streamed import DatasetReader, StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.utils.registry import import_factory


class UserDataset(LabelledSource):
    """What ``package.module:factory`` makes: ``factory(train=True)`` and ``factory(train=False)``.

    Each returns a Dataset of ``(image, label)`` with images of one shape, tensors (uint8, or ready for a network) or
    PIL images, or None where there is no test set. Transforms are the Dataset's own; random ones follow the run's seed
    as far as they draw from torch's generator. Labels come from its attribute ``targets`` or ``labels``, else every
    item is read once.

    Args:
        config: whose ``dataset`` is the path.
        factory: in place of what the path names; ``dataset`` is then only what messages call the data.
    """

    default_teacher = "resnet56"
    default_student = "resnet20"

    def __init__(self, config: DataConfig, factory: Callable[..., Any] | None = None) -> None:
        super().__init__(config)
        self._factory = factory or import_factory(config.dataset, "data set")

    def training_images(self) -> tuple[ImageSet, int]:
        """Load all images that are not for testing, and the number of classes.

        Raises:
            UsageError: if the Dataset cannot be made, or does not hold labelled images.
        """
        images = self._load(train=True)
        if images is None:
            raise UsageError(f"{self.config.dataset} gives no training images")
        return images, int(images.labels.max()) + 1

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None where there is none.

        Raises:
            UsageError: likewise.
        """
        return self._load(train=False)

    def _load(self, train: bool) -> ImageSet | None:
        try:
            dataset: Dataset[Any] | None = self._factory(train=train)
            if dataset is None:
                return None
            size = len(dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise UsageError(
                f"{self.config.dataset} must take train=True or train=False and return a Dataset with a length: {error}"
            ) from None
        if size == 0:
            raise UsageError(f"{self.config.dataset} gives an empty Dataset")
        labels = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
        if labels is None:
            labels = [int(dataset[position][1]) for position in range(size)]
        checked = as_labels(np.asarray(labels), size, f"the labels of {self.config.dataset}")
        reader = DatasetReader(dataset)
        return StreamedImages(reader, torch.arange(size), checked, Preprocessing(), self.config.workers)
