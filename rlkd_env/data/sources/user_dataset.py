"""A user's own torch ``Dataset``, given as ``package.module:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from rlkd_env.data.augmentation import ImageChanges, Preprocessing
from rlkd_env.data.images import ImageSet
from rlkd_env.data.sources.arrays import as_labels
from rlkd_env.data.sources.dataset_reader import LABEL_NAMES, DatasetReader, image_and_label
from rlkd_env.data.splits import LabelledSource, Part
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.utils.notices import tell
from rlkd_env.utils.randomness import generators_kept
from rlkd_env.utils.registry import is_factory


class UserDataset(LabelledSource):
    """The Datasets that ``factory(train=True)`` and ``factory(train=False)`` return.

    A factory with a parameter ``split`` gets ``"train"``, ``"validation"`` or ``"test"`` in place of ``train``. One
    with a parameter ``augment`` is called with True for the training images, and with False for the same images without
    random transforms, which rewards and validation look at. For a part that is not there it returns None.

    Each is a Dataset of ``(image, label)``, or of mappings such as HuggingFace's, whose images have one shape and are
    tensors (uint8, or ready for a network), arrays or PIL images. The Dataset applies its own transforms; random ones
    follow the run's seed, or the image's position where a plain image is wanted, if they draw from torch's, NumPy's or
    Python's global generator. Labels are read from the attribute ``targets`` or ``labels`` if it holds what the items
    say, otherwise from every item.
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
        return self._training_images

    @cached_property
    def _training_images(self) -> tuple[ImageSet, int]:
        dataset = self._dataset("train", augment=True)
        if dataset is None:
            raise UsageError(f"{self.config.dataset} returns no training images")
        reader = DatasetReader(dataset, self._plain(len(dataset)))  # type: ignore[arg-type]
        if (reason := reader.why_not_plain()) is not None:
            tell(
                f"the images of {self.config.dataset} {reason}: let its factory take augment=False, and split, for "
                "images without random transforms"
            )
        if reader.remark is not None:
            tell(f"the images of {self.config.dataset} {reader.remark}")
        images = self._image_set(reader, dataset)
        return images, int(images.labels.max()) + 1

    def validation_set(self) -> ImageSet | None:
        """Load the data's own validation images, or None if they are to be drawn from the training images."""
        return self._other_part("validation") if "split" in self._parameters else None

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        return self._other_part("test")

    @cached_property
    def _parameters(self) -> frozenset[str]:
        """The names of the factory's parameters."""
        try:
            return frozenset(inspect.signature(self.factory).parameters)
        except ValueError:  # builtins have none
            return frozenset()

    def _dataset(self, part: Part, augment: bool) -> Dataset[Any] | None:
        """Return what the factory gives for a part."""
        given: dict[str, Any] = {"split": part} if "split" in self._parameters else {"train": part == "train"}
        if "augment" in self._parameters:
            given["augment"] = augment
        try:
            dataset: Dataset[Any] | None = self.factory(**given)
            if dataset is None:
                return None
            if not hasattr(type(dataset), "__getitem__") or isinstance(dataset, str | bytes | Mapping):
                raise TypeError(f"it returned a {type(dataset).__name__}")
            size = len(dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise UsageError(
                f"{self.config.dataset} must take train=True or train=False, or split='train', 'validation' or 'test', "
                f"and return a Dataset with a length: {error}"
            ) from None
        if size == 0:
            raise UsageError(f"{self.config.dataset} returns an empty Dataset")
        return dataset

    def _plain(self, size: int) -> Dataset[Any] | None:
        """Return the training images without random transforms, if the factory gives them apart."""
        if "augment" not in self._parameters:
            return None
        plain = self._dataset("train", augment=False)
        if plain is None or len(plain) != size:  # type: ignore[arg-type]
            raise UsageError(f"{self.config.dataset} returns other training images with augment=False")
        return plain

    def _other_part(self, part: Part) -> ImageSet | None:
        """Load the images of a part in the form of the training images, or return None if there are none."""
        dataset = self._dataset(part, augment=False)
        if dataset is None:
            return None
        train, num_classes = self.training_images()
        images = self._image_set(DatasetReader(dataset), dataset, num_classes)
        if images.image_shape != train.image_shape:
            raise UsageError(
                f"the {part} images of {self.config.dataset} have the shape {images.image_shape}, "
                f"the training images {train.image_shape}"
            )
        return images

    def _image_set(self, reader: DatasetReader, dataset: Dataset[Any], num_classes: int | None = None) -> ImageSet:
        size = len(dataset)  # type: ignore[arg-type]
        labels = as_labels(_labels(dataset), size, f"the labels of {self.config.dataset}", num_classes)
        return StreamedImages(reader, torch.arange(size), labels, self._preprocessing(reader), self.config.workers)

    def _preprocessing(self, reader: DatasetReader) -> Preprocessing:
        constants = self.config.constants(reader.image_shape[0])
        changes = ImageChanges.of(self.config)
        unfit = "--normalization" if constants is not None else "--auto-augment"
        if not reader.is_within_unit and (constants is not None or changes.auto_augment != "none"):
            raise UsageError(
                f"the images of {self.config.dataset} are not from 0 to 1, and so normalised already: leave "
                f"{unfit} out, or return them without normalisation"
            )
        return Preprocessing(*(constants or ((), ())), changes=changes)


def _labels(dataset: Dataset[Any]) -> np.ndarray:
    """Return the classes ``(n,)`` of the items: what they are called, if that is what the first ones say."""
    size = len(dataset)  # type: ignore[arg-type]

    def label(position: int) -> np.ndarray:
        return np.asarray(image_and_label(dataset[position], position)[1])

    with generators_kept():
        first = [label(position) for position in range(min(4, size))]
        columns = [name for name in LABEL_NAMES if name in getattr(dataset, "column_names", ())]  # HuggingFace's
        named = [dataset[name] for name in columns]
        for told in (*(getattr(dataset, name, ()) for name in ("targets", "labels")), *named):
            known = np.asarray(told)
            if known.shape == (size,) and np.array_equal(known[: len(first)], first):
                return known
        return np.asarray(first + [label(position) for position in range(len(first), size)])
