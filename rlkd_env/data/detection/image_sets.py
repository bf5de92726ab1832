"""Sets of images with the boxes of their objects, in memory or read from disk."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkd_env.data.augmentation import Preprocessing
from rlkd_env.data.boxes import Boxes
from rlkd_env.data.config import DataConfig
from rlkd_env.data.detection.annotations import Annotations, scales
from rlkd_env.data.images import ImageSet, MemoryImages, Request
from rlkd_env.data.normalization import AUTO
from rlkd_env.data.streamed import Reader, StreamedImages
from rlkd_env.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionSet(ImageSet):
    """Images of one size with the boxes of their objects, which random views mirror together.

    Attributes:
        boxes: The boxes of all images in pixels of the images that networks see, on the device.
        annotations: The annotations in pixels of the files, on the CPU.
    """

    boxes: Boxes
    annotations: Annotations

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the C classes, starting with class 1."""
        return self.annotations.class_names

    def take_boxes(self, positions: Tensor, view: int | None = None) -> Boxes:
        """Return the boxes of the images that :meth:`take` returns."""
        boxes = self.boxes.take(positions)
        if view is None or not self.is_random:
            return boxes
        return boxes.mirrored(self._drawn(positions, view)[:, 2], self.image_shape[2])

    def ground_truth(self) -> dict[str, Any]:
        """Return the dictionary in pixels of the files that COCO's evaluation reads; images count from 1 in order."""
        return self.annotations.as_coco()

    def in_files(self, position: int, corners: Tensor) -> Tensor:
        """Convert corners ``(k, 4)`` to pixels of the file at a position; those in the padding move to its border."""
        _, height, width = self.image_shape
        size = self.annotations.sizes[position].view(1, 2)
        factors = scales(size, height, width).repeat(1, 2).to(corners)
        return torch.minimum((corners / factors).clamp(min=0.0), size.repeat(1, 2).to(corners))

    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at positions ``(m,)``."""
        part = super().subset(positions)  # type: ignore[safe-super]
        return replace(part, boxes=self.boxes.take(positions), annotations=self.annotations.take(positions))

    def to(self, device: torch.device) -> Self:
        """Return the set with its images and boxes on another device."""
        moved = super().to(device)  # type: ignore[safe-super]
        return replace(moved, boxes=self.boxes.to(device))

    def fingerprint(self) -> str:
        """Return a hash that identifies the images, classes and boxes."""
        content = hashlib.sha256(super().fingerprint().encode())  # type: ignore[safe-super]
        for values in (self.boxes.corners, self.boxes.classes, self.boxes.is_crowd):
            content.update(values.cpu().numpy().tobytes())
        return content.hexdigest()

    def _drawn(self, positions: Tensor, view: int) -> Tensor:
        return self._views(view)[positions.to(self.labels.device)]


@dataclass(frozen=True, eq=False, kw_only=True)
class MemoryDetectionSet(DetectionSet, MemoryImages):
    """Images and boxes kept in memory, on the device."""

    @classmethod
    def of(cls, pixels: Tensor, annotations: Annotations, preprocessing: Preprocessing) -> MemoryDetectionSet:
        """Make a set of pixels ``(n, channels, height, width)`` and the annotations of their files."""
        boxes = annotations.fitted(*pixels.shape[-2:])
        return cls(
            pixels=pixels,
            labels=largest_classes(boxes),
            preprocessing=preprocessing,
            boxes=boxes,
            annotations=annotations,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedDetectionSet(DetectionSet, StreamedImages):
    """Images read whenever they are needed, with their boxes; random views are the same as for a set in memory."""

    @classmethod
    def of(
        cls, reader: Reader, annotations: Annotations, preprocessing: Preprocessing, workers: int
    ) -> StreamedDetectionSet:
        """Make a set of all images of a reader without random views and the annotations of their files."""
        boxes = annotations.fitted(*reader.image_shape[-2:])
        return cls(
            reader=reader,
            positions=torch.arange(len(annotations)),
            labels=largest_classes(boxes),
            preprocessing=preprocessing,
            workers=workers,
            boxes=boxes,
            annotations=annotations,
        )

    is_random = ImageSet.is_random  # that of the preprocessing, not of the reader

    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Read images ``(N, channels, height, width)`` in this process."""
        return self._view_of(super().take(positions), positions, view)

    def in_memory(self) -> MemoryDetectionSet:
        """Return the set with its plain images in memory, read in this process."""
        return MemoryDetectionSet(
            pixels=super().in_memory().pixels,
            labels=self.labels,
            preprocessing=self.preprocessing,
            boxes=self.boxes,
            annotations=self.annotations,
        )

    def follow(self, requests: Iterator[Request]) -> Iterator[Tensor]:
        """Read batches ahead in worker processes, which end when the iterator is dropped."""
        ahead, asked = itertools.tee(requests)
        return (self._view_of(images, *request) for images, request in zip(super().follow(ahead), asked, strict=False))

    def _view_of(self, images: Tensor, positions: Tensor, view: int | None) -> Tensor:
        if view is None or not self.is_random:
            return images
        return self.preprocessing.augment(images, self._drawn(positions, view))


def largest_classes(boxes: Boxes) -> Tensor:
    """Return the class ``(n,)`` of every image's largest object, 0 where there are no objects or only crowds."""
    if boxes.classes.shape[1] == 0:
        return torch.zeros(len(boxes), dtype=torch.int64)
    sides = boxes.corners[..., 2:] - boxes.corners[..., :2]
    classes = boxes.classes.masked_fill(boxes.is_crowd, 0)
    largest = (sides.prod(dim=-1) * (classes > 0)).argmax(dim=1, keepdim=True)
    return classes.gather(1, largest).squeeze(1)


def is_flipped(config: DataConfig, usual: bool) -> bool:
    """Return whether training images are mirrored: as requested, or as is usual for the data.

    Raises:
        UsageError: If the augmentation or the normalization is not for detection.
    """
    if config.normalization != AUTO:
        raise UsageError("detectors' images are normalised by the usual constants: leave --normalization out")
    if config.augmentation in ("crop_flip", "resized_crop"):
        raise UsageError(f"the augmentation {config.augmentation} is not for detection; it can be none or flip")
    return usual if config.augmentation == "auto" else config.augmentation == "flip"
