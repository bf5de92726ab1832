"""Boxes of the objects in a batch of images, the image regions that are the instances of detection, and their boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, eq=False)
class Boxes:
    """The real boxes of B images, padded to M boxes per image.

    Attributes:
        corners: Left, top, right and bottom ``(B, M, 4)`` in pixels of the images that networks see.
        classes: The classes ``(B, M)``, int64 from 1 (0 is the background); 0 marks padding.
        is_crowd: Whether a box holds many objects of its class ``(B, M)``; such boxes are not trained on.
        shown: Left, top, right and bottom ``(B, 4)`` in the same pixels of what the images show, beside which there is
            a border of one colour; None if no image has one.
    """

    corners: Tensor
    classes: Tensor
    is_crowd: Tensor
    shown: Tensor | None = None

    @classmethod
    def of_images(cls, images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Boxes:
        """Join images, each given as corners ``(m, 4)``, classes ``(m,)`` and crowds ``(m,)``."""
        return cls(*(pad_sequence(list(values), batch_first=True) for values in zip(*images, strict=True)))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """The device of the boxes."""
        return self.classes.device

    @property
    def is_single(self) -> Tensor:
        """Whether there is a box with a single object ``(B, M)``; networks are trained on those."""
        return (self.classes > 0) & ~self.is_crowd

    def take(self, positions: Tensor) -> Boxes:
        """Return the boxes of the images at positions ``(m,)``."""
        positions = positions.to(self.device)
        return self._map(lambda values: values[positions])

    def to(self, device: torch.device) -> Boxes:
        """Return the boxes on another device."""
        return self._map(lambda values: values.to(device))

    def mirrored(self, is_mirrored: Tensor, width: int) -> Boxes:
        """Return the boxes after mirroring the images ``(B,)`` that are marked, each ``width`` pixels wide."""
        is_mirrored = is_mirrored.bool().unsqueeze(-1)
        is_there = is_mirrored.unsqueeze(-1) & (self.classes > 0).unsqueeze(-1)
        corners, shown = torch.where(is_there, _mirrored(self.corners, width), self.corners), self.shown
        if shown is not None:
            shown = torch.where(is_mirrored, _mirrored(shown, width), shown)
        return replace(self, corners=corners, shown=shown)

    def of_those(self, is_shown: Tensor) -> Boxes:
        """Return the boxes without those of the images ``(B,)`` that are not shown."""
        return replace(self, classes=self.classes * is_shown.unsqueeze(-1))

    def joined(self, others: Boxes) -> Boxes:
        """Return the boxes of these images overlaid with those of as many other images."""
        return Boxes(
            torch.cat([self.corners, others.corners], dim=1),
            torch.cat([self.classes, others.classes], dim=1),
            torch.cat([self.is_crowd, others.is_crowd], dim=1),
            self._shown_by_either(others),
        )

    def _shown_by_either(self, others: Boxes) -> Tensor | None:
        """Return the smallest frame of what either image shows."""
        if self.shown is None or others.shown is None:
            return None
        start = torch.minimum(self.shown[:, :2], others.shown[:, :2])
        return torch.cat([start, torch.maximum(self.shown[:, 2:], others.shown[:, 2:])], dim=1)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Boxes:
        corners, classes, is_crowd = map(function, (self.corners, self.classes, self.is_crowd))
        return Boxes(corners, classes, is_crowd, None if self.shown is None else function(self.shown))

    def trainable(self) -> list[tuple[Tensor, Tensor]]:
        """Return each image's corners ``(m, 4)`` and classes ``(m,)`` without crowds and padding."""
        images = zip(self.corners, self.classes, self.is_single, strict=True)
        return [(corners[chosen], classes[chosen]) for corners, classes, chosen in images]


def _mirrored(corners: Tensor, width: int) -> Tensor:
    left, top, right, bottom = corners.unbind(dim=-1)
    return torch.stack([width - right, top, width - left, bottom], dim=-1)


@dataclass(frozen=True, eq=False)
class Regions:
    """The instances of a detection batch of B images: equally many proposals per image, image by image.

    Attributes:
        corners: The corners ``(N, 4)`` of the proposals in pixels of the images that networks see.
        images: The position ``(N,)`` in the batch of each proposal's image.
        objectness: The probability ``(N,)``, by the student's proposal network, that there is an object; 1 for real
            boxes, which are proposals too during training.
        overlap: The intersection over union ``(N,)`` with the real box that overlaps the proposal most; 0 in images
            without boxes.
        real: The real boxes of the B images.
    """

    corners: Tensor
    images: Tensor
    objectness: Tensor
    overlap: Tensor
    real: Boxes


@dataclass(frozen=True, eq=False)
class RegionBoxes:
    """What detectors say about the boxes of the objects in N regions, relative to the regions, in the head's own code.

    Attributes:
        student: The student's boxes ``(N, 4)``, of the class of the region's real box; with gradient.
        teacher: The teacher's, likewise, without gradient.
        targets: The real boxes ``(N, 4)``; meaningless for the background.
        student_edges: The student's logits ``(N, 4, bins + 1)`` of the bins that an edge may lie in, with gradient, or
            None if its head gives numbers.
        teacher_edges: The teacher's, likewise, without gradient.
    """

    student: Tensor
    teacher: Tensor
    targets: Tensor
    student_edges: Tensor | None = None
    teacher_edges: Tensor | None = None
