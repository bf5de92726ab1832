"""Labelled images, in memory or read as they are needed, and what is done to them on the way to a network."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.boxes import Boxes
from rlkd_env.utils.seeds import seeded_generator

if TYPE_CHECKING:
    from typing_extensions import Self

Request = tuple[Tensor, int | None]
"""Positions ``(N,)`` in a set, and the seed of their random views or None for none."""


@dataclass(frozen=True)
class Preprocessing:
    """From pixels to a network's input, on the device and for all images of a batch at once.

    Attributes:
        mean: per channel, of pixels in ``[0, 1]``; empty leaves the values as they are.
        deviation: per channel, likewise.
        crop_padding: pixels of black around an image from which a training view of the old size is cut; 0 cuts none.
        flip: whether half of the training views are mirrored.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    crop_padding: int = 0
    flip: bool = False

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn ``(N, channels, height, width)`` pixels, uint8 or float32 in ``[0, 1]``, into a network's input."""
        scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
        values = pixels.float()
        if not self.mean:
            return values / scale if scale != 1.0 else values
        mean, deviation = (_per_channel(constants, scale, pixels.device) for constants in (self.mean, self.deviation))
        return (values - mean) / deviation

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.crop_padding > 0 or self.flip

    def draw(self, count: int, seed: int) -> Tensor:
        """Draw what makes ``count`` random views: ``(count, 3)`` shifts down and right, and whether to mirror."""
        generator = seeded_generator(seed)
        shifts = torch.randint(2 * self.crop_padding + 1, (count, 2), generator=generator)
        mirrored = torch.randint(2, (count, 1), generator=generator) * int(self.flip)
        return torch.cat([shifts, mirrored], dim=1)

    def augment(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """Return the view of every image of ``(N, channels, height, width)`` that was drawn ``(N, 3)``."""
        down, right, is_mirrored = drawn.unbind(dim=1)
        if self.crop_padding:
            height, width = pixels.shape[-2:]
            padded = F.pad(pixels, [self.crop_padding] * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: nothing is copied but those taken
            pixels = windows[torch.arange(len(pixels), device=pixels.device), :, down, right]
        if self.flip:
            pixels = torch.where(is_mirrored.bool().view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels


@lru_cache(maxsize=64)
def _per_channel(constants: tuple[float, ...], scale: float, device: torch.device) -> Tensor:
    """Keep a constant of every channel, ``(channels, 1, 1)``, on the device, where no batch has to wait for it."""
    return torch.tensor(constants, device=device).view(-1, 1, 1) * scale


class ImageSet(ABC):
    """Images with their classes.

    Attributes:
        labels: ``(n,)`` int64, on the device that images are handed out on. Of images for detection it is the class of
            the largest object from 1, or 0 where there is none: what the parts of the data are stratified by.
        preprocessing: what happens to the images on the way to a network.
    """

    labels: Tensor
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether training views differ from the images."""

    @abstractmethod
    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Return images ``(N, channels, height, width)``, ready for a network.

        Args:
            positions: ``(N,)`` in the set.
            view: seed of the random views, one of every image in the set; None gives the images as they are.
        """

    @abstractmethod
    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at ``(m,)`` positions."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Return the set with its images handed out on another device."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short text that differs for other images or labels."""

    def take_boxes(self, positions: Tensor, view: int | None = None) -> Boxes | None:  # noqa: ARG002
        """Return where the objects of the images that :meth:`take` gives are; None of a set for classification."""
        return None

    def follow(self, requests: Iterator[Request]) -> Iterator[Tensor]:
        """Take one batch after the other, as :meth:`take` does; a set that reads from disk reads ahead."""
        return (self.take(*request) for request in requests)

    def chunks(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """Return the set's images in order and in chunks, all of them or the first ``limit``."""
        positions = torch.arange(min(len(self), limit or len(self)))
        return self.follow((chunk, None) for chunk in positions.split(size))

    @cached_property
    def images(self) -> Tensor:
        """All images ``(n, channels, height, width)``, ready for a network; for small sets."""
        return self.take(torch.arange(len(self), device=self.labels.device))

    @cached_property
    def _views(self) -> Callable[[int], Tensor]:
        """Draws of all images, ``(n, 3)`` on the device, made for a whole epoch and kept while it lasts."""
        draw, device = self.preprocessing.draw, self.labels.device
        return lru_cache(maxsize=4)(lambda view: draw(len(self), view).to(device))


@dataclass(frozen=True, eq=False)
class MemoryImages(ImageSet):
    """Images that are kept in memory, on the device.

    Attributes:
        pixels: ``(n, channels, height, width)`` uint8, or float32 that only ``preprocessing`` changes.
        labels: ``(n,)`` int64.
        preprocessing: what happens to them on the way to a network.
    """

    pixels: Tensor
    labels: Tensor
    preprocessing: Preprocessing = Preprocessing()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.preprocessing.is_random

    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Return images ``(N, channels, height, width)``, ready for a network."""
        positions = positions.to(self.pixels.device)
        pixels = self.pixels[positions]
        if view is not None and self.is_random:
            pixels = self.preprocessing.augment(pixels, self._views(view)[positions])
        return self.preprocessing.normalize(pixels)

    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at ``(m,)`` positions."""
        positions = positions.to(self.labels.device)
        return replace(self, pixels=self.pixels[positions], labels=self.labels[positions])

    def to(self, device: torch.device) -> Self:
        """Return the set on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def fingerprint(self) -> str:
        """Return a hash of all pixels and labels."""
        content = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        content.update(self.labels.cpu().numpy().tobytes())
        return content.hexdigest()
