"""Sets of labelled images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlkd_env.data.augmentation import PLAIN, Preprocessing
from rlkd_env.data.boxes import Boxes
from rlkd_env.data.normalization import NORMALIZATIONS, Constants, for_channels
from rlkd_env.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

Request = tuple[Tensor, int | None]
"""Positions ``(N,)`` in a set and the seed of their random views, or None for the plain images."""

NO_SECOND_VIEW = (
    "the method compares two views of every image, and here there is one, as {reason}: choose another method, or mlkd "
    "with two_views False"
)


def in_stronger_views(
    preprocessing: Preprocessing, image_shape: tuple[int, ...], is_within_unit: bool
) -> Preprocessing:
    """Return a preprocessing whose random views are changed more strongly.

    Raises:
        UsageError: if there are no such changes for images of this shape, or for their pixels.
    """
    if image_shape[0] not in (1, 3):
        raise UsageError(NO_SECOND_VIEW.format(reason=f"RandAugment is for 1 or 3 channels, not {image_shape[0]}"))
    if not is_within_unit:
        raise UsageError(NO_SECOND_VIEW.format(reason="pixels are normalised already"))
    return replace(preprocessing, changes=preprocessing.changes.stronger)


class ImageSet(ABC):
    """A set of n images with their classes.

    Attributes:
        labels: The classes ``(n,)``, int64, on the device that images are returned on. For detection, the class of the
            largest object, counted from 1, or 0 for an image without objects; splits are stratified by it.
        preprocessing: The preprocessing of the images.
        teacher_logits: A teacher's logits ``(n, C)`` on the plain images, if they come with the data, or None.
    """

    labels: Tensor
    preprocessing: Preprocessing
    teacher_logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.preprocessing.is_random

    @property
    def is_within_unit(self) -> bool:
        """Whether pixels are known to be from 0 to 1 before they are normalised."""
        return True

    @property
    def normalization(self) -> Constants | None:
        """The mean and standard deviation of every channel that pixels from 0 to 1 are normalised by.

        Without any they are 0 and 1; None if images come normalised already.
        """
        if self.preprocessing.mean:
            return self.preprocessing.mean, self.preprocessing.std
        return for_channels(NORMALIZATIONS["none"], self.image_shape[0]) if self.is_within_unit else None

    @abstractmethod
    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Return the preprocessed images ``(N, channels, height, width)`` at positions ``(N,)``.

        A ``view`` is a seed that defines one random view of every image; None gives the plain images.
        """

    @abstractmethod
    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at positions ``(m,)``."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Return the set with its images on another device."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that identifies the images and labels."""

    def take_boxes(self, positions: Tensor, view: int | None = None) -> Boxes | None:  # noqa: ARG002
        """Return the boxes of the images that :meth:`take` returns, or None for classification."""
        return None

    def in_stronger_views(self) -> Self:
        """Return the set whose random views are changed more strongly, for methods that compare two views.

        The changes are those of :attr:`~rlkd_env.data.augmentation.ImageChanges.stronger`.

        Raises:
            UsageError: if the set's images cannot be changed so.
        """
        raise UsageError(NO_SECOND_VIEW.format(reason=f"{type(self).__name__} makes no other"))

    def in_memory(self) -> ImageSet:
        """Return the set with its plain images in memory, for a few that are looked at again and again."""
        return self

    def follow(self, requests: Iterator[Request]) -> Iterator[Tensor]:
        """Yield the images of each request, as :meth:`take` does; sets on disk read ahead."""
        return (self.take(*request) for request in requests)

    def chunks(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """Yield the set's images in order, in chunks; all of them or the first ``limit``."""
        positions = torch.arange(min(len(self), limit or len(self)))
        return self.follow((chunk, None) for chunk in positions.split(size))

    @cached_property
    def images(self) -> Tensor:
        """All preprocessed images ``(n, channels, height, width)``; for small sets only."""
        return self.take(torch.arange(len(self), device=self.labels.device))

    @cached_property
    def _views(self) -> Callable[[int], Tensor]:
        """Maps a view to the drawn parameters ``(n, 3)`` of all images, cached on the device for the epoch."""
        draw, device = self.preprocessing.draw, self.labels.device
        return lru_cache(maxsize=4)(lambda view: draw(len(self), view).to(device))


@dataclass(frozen=True, eq=False)
class MemoryImages(ImageSet):
    """Images kept on the device: pixels ``(n, channels, height, width)``, uint8, or float32 in ``[0, 1]``."""

    pixels: Tensor
    labels: Tensor
    preprocessing: Preprocessing = PLAIN

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Return preprocessed images ``(N, channels, height, width)``."""
        positions = positions.to(self.pixels.device)
        pixels = self.pixels[positions]
        if view is not None and self.is_random:
            pixels = self.preprocessing.augment(pixels, self._views(view)[positions])
            pixels = self.preprocessing.vary(pixels, view, positions)
        return self.preprocessing.normalize(pixels)

    def chunks(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """Yield the images in order, in chunks; positions that came from the host would make it wait for the device."""
        positions = torch.arange(min(len(self), limit or len(self)), device=self.pixels.device)
        return (self.take(chunk) for chunk in positions.split(size))

    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at positions ``(m,)``."""
        positions = positions.to(self.labels.device)
        return replace(self, pixels=self.pixels[positions], labels=self.labels[positions])

    def to(self, device: torch.device) -> Self:
        """Return the set on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def in_stronger_views(self) -> Self:
        """Return the set whose random views are changed more strongly; see :meth:`ImageSet.in_stronger_views`."""
        return replace(self, preprocessing=in_stronger_views(self.preprocessing, self.image_shape, self.is_within_unit))

    def joined(self, other: Self) -> Self:
        """Return the set of this set's images and then another's."""
        return replace(
            self, pixels=torch.cat([self.pixels, other.pixels]), labels=torch.cat([self.labels, other.labels])
        )

    def fingerprint(self) -> str:
        """Return a hash of all pixels and labels."""
        content = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        content.update(self.labels.cpu().numpy().tobytes())
        return content.hexdigest()
