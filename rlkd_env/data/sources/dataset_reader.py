"""Images and classes out of the items of somebody's torch ``Dataset``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data.decoding import as_seen
from rlkd_env.data.streamed import Reader, Reading, Unreadable
from rlkd_env.errors import UsageError
from rlkd_env.utils.randomness import generators_kept, seed_generators

IMAGE_NAMES = ("image", "img", "pixel_values", "images", "x", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "y", "cls")
"""The names of the entries of an item that is a mapping, as HuggingFace's data sets and WebDataset have them."""
_CHANNELS = (1, 3)
_BRIGHT = 30.0
"""Pixels from 0 to beyond this are bytes as floating-point numbers; normalised ones are smaller, or negative."""


def image_and_label(item: Any, position: int) -> tuple[Any, Any]:
    """Return the image and the class of an item: the first two of a tuple, or a mapping's entries by their names.

    Raises:
        UsageError: If there are none.
    """
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    if not isinstance(item, Mapping):
        raise UsageError(f"item {position} of the Dataset is a {type(item).__name__}, not a pair of image and class")
    found = [next((item[name] for name in names if name in item), None) for names in (IMAGE_NAMES, LABEL_NAMES)]
    if any(one is None for one in found):
        raise UsageError(
            f"item {position} of the Dataset has the entries {', '.join(map(str, item))}: an image is looked for under "
            f"{', '.join(IMAGE_NAMES)}, a class under {', '.join(LABEL_NAMES)}"
        )
    return found[0], found[1]


class DatasetReader(Reader):
    """A reader of a torch ``Dataset`` of images and classes; images are tensors, arrays or PIL images of one shape.

    Plain images are those of ``plain``, the same images without random transforms, if that is given.

    Attributes:
        is_within_unit: Whether the pixels of the first image are from 0 to 1, or bytes, and so not normalised yet.
        remark: What the user should know of the first image's pixels, or None.

    Raises:
        UsageError: If the first item holds no image.
    """

    def __init__(self, dataset: Dataset[Any], plain: Dataset[Any] | None = None) -> None:
        self._dataset, self._plain = dataset, dataset if plain is None else plain
        self.is_random = True  # its transforms may be
        self._expected: tuple[int, int, int] | None = None
        first = self._first_image()
        if isinstance(first, Unreadable):
            raise UsageError(first.reason)
        if not first.isfinite().all():
            raise UsageError("item 0 of the Dataset has pixels that are no finite numbers")
        channels, height, width = first.shape
        self._expected = self.image_shape = (channels, height, width)
        self.is_within_unit = first.dtype == torch.uint8 or bool(((first >= 0) & (first <= 1)).all())
        self.remark = None
        if first.dtype != torch.uint8 and first.min() >= 0 and first.max() > _BRIGHT:
            self.remark = "have floating-point pixels beyond 1, which networks get as they are: divide them by 255"

    def read(self, position: int, is_augmented: bool) -> Tensor | Unreadable:
        """Return an image, which the Dataset itself may augment."""
        try:
            image = image_and_label((self._dataset if is_augmented else self._plain)[position], position)[0]
        except UsageError as error:
            return Unreadable(str(error))
        found = self._as_tensor(image, f"item {position} of the Dataset")
        if isinstance(found, Tensor) and self._expected not in (None, tuple(found.shape)):
            return Unreadable(
                f"item {position} of the Dataset has the shape {tuple(found.shape)}, but the first {self._expected}: "
                "let its transforms bring all to one"
            )
        return found

    def _as_tensor(self, image: Any, what: str) -> Tensor | Unreadable:
        """Return an image ``(channels, height, width)``, uint8 or float32."""
        if isinstance(image, Image.Image):
            try:
                seen = as_seen(image)
            except (OSError, ValueError) as error:
                return Unreadable(f"{what} cannot be read: {error}")
            is_colour = self._expected is not None and self._expected[0] == 3
            return transforms.pil_to_tensor(seen.convert("RGB") if is_colour else seen)
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image))
            if _has_channels_last(image):
                image = image.permute(2, 0, 1).contiguous()
        if isinstance(image, Tensor) and image.ndim == 2:
            image = image.unsqueeze(0)
        if not isinstance(image, Tensor) or image.ndim != 3:
            shape = f" {tuple(image.shape)}" if isinstance(image, Tensor) else ""
            return Unreadable(f"{what} is not an image (channels, height, width) but {type(image)}{shape}")
        if _has_channels_last(image):
            return Unreadable(f"{what} has the shape {tuple(image.shape)}: tensors of images have their channels first")
        if image.dtype == torch.uint8:
            return image
        if not image.is_floating_point():
            return Unreadable(f"{what} has pixels of {image.dtype}, whose scale is not known: give uint8 or floats")
        return image.float()

    def why_not_plain(self) -> str | None:
        """Return in what way its first images without augmentation are random; None if they are not."""
        looks = []
        with generators_kept():
            for seed in (0, 0, 1):
                seed_generators(seed)
                positions = range(min(4, len(self._plain)))  # type: ignore[arg-type]
                looks.append([self.read(position, is_augmented=False) for position in positions])
        first, same_seed, other_seed = looks
        if not _are_equal(first, same_seed):
            return "draw from a generator of their own, which follows no seed, so that no run can be repeated"
        return None if _are_equal(first, other_seed) else "are random, so that each is looked at in one random view"

    def fingerprint(self) -> str:
        """Return a hash of the Dataset's class, length and first image."""
        first = self._first_image()
        assert isinstance(first, Tensor)
        content = hashlib.sha256(f"{type(self._dataset)} {len(self._dataset)}".encode())  # type: ignore[arg-type]
        content.update(first.numpy().tobytes())
        return content.hexdigest()

    def _first_image(self) -> Tensor | Unreadable:
        found = Reading(self)[(torch.zeros(1, dtype=torch.int64), None)]
        return found if isinstance(found, Unreadable) else found[0]


def _has_channels_last(image: Tensor) -> bool:
    return image.ndim == 3 and image.shape[-1] in _CHANNELS and image.shape[0] not in _CHANNELS


def _are_equal(images: list[Tensor | Unreadable], others: list[Tensor | Unreadable]) -> bool:
    """Return whether images that can be read are the same."""
    pairs = zip(images, others, strict=True)
    return all(torch.equal(one, other) for one, other in pairs if isinstance(one, Tensor) and isinstance(other, Tensor))
