"""Where the objects of images are: boxes, padded to equally many an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, eq=False)
class Boxes:
    """Real boxes of B images, at most M an image.

    Attributes:
        corners: ``(B, M, 4)`` left, top, right and bottom in pixels of the images as networks get them.
        classes: ``(B, M)`` int64 from 1, as 0 is the background; 0 where an image has no further box.
        is_crowd: ``(B, M)`` whether a box holds many objects of its class, which nobody trains on.
    """

    corners: Tensor
    classes: Tensor
    is_crowd: Tensor

    @classmethod
    def of_images(cls, images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Boxes:
        """Put images together, of each its corners ``(m, 4)``, classes ``(m,)`` and crowds ``(m,)``."""
        corners, classes, is_crowd = (
            pad_sequence(list(values), batch_first=True) for values in zip(*images, strict=True)
        )
        return cls(corners, classes, is_crowd)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """That the boxes are on."""
        return self.classes.device

    @property
    def is_single(self) -> Tensor:
        """``(B, M)`` whether there is a box that holds one object, which networks are trained on."""
        return (self.classes > 0) & ~self.is_crowd

    def take(self, positions: Tensor) -> Boxes:
        """Return the boxes of the images at ``(m,)`` positions."""
        positions = positions.to(self.device)
        return Boxes(self.corners[positions], self.classes[positions], self.is_crowd[positions])

    def to(self, device: torch.device) -> Boxes:
        """Return the boxes on another device."""
        return Boxes(self.corners.to(device), self.classes.to(device), self.is_crowd.to(device))

    def mirrored(self, is_mirrored: Tensor, width: int) -> Boxes:
        """Return the boxes after some of the images ``(B,)``, which are ``width`` pixels wide, were mirrored."""
        left, top, right, bottom = self.corners.unbind(dim=-1)
        other = torch.stack([width - right, top, width - left, bottom], dim=-1)
        is_there = is_mirrored.bool().view(-1, 1, 1) & (self.classes > 0).unsqueeze(-1)
        return Boxes(torch.where(is_there, other, self.corners), self.classes, self.is_crowd)

    def of_those(self, is_shown: Tensor) -> Boxes:
        """Return the boxes without those of the images ``(B,)`` that are not shown."""
        return Boxes(self.corners, self.classes * is_shown.unsqueeze(-1), self.is_crowd)

    def joined(self, others: Boxes) -> Boxes:
        """Return the boxes of these and of other images, one upon the other."""
        return Boxes(
            torch.cat([self.corners, others.corners], dim=1),
            torch.cat([self.classes, others.classes], dim=1),
            torch.cat([self.is_crowd, others.is_crowd], dim=1),
        )

    def trainable(self) -> list[tuple[Tensor, Tensor]]:
        """Return of every image corners ``(m, 4)`` and classes ``(m,)`` of its boxes, without crowds and padding."""
        images = zip(self.corners, self.classes, self.is_single, strict=True)
        return [(corners[chosen], classes[chosen]) for corners, classes, chosen in images]


@dataclass(frozen=True, eq=False)
class Regions:
    """The instances of a detection batch of B images: equally many proposals of every image, one image after the other.

    Attributes:
        corners: ``(N, 4)`` of the proposals, in pixels of the images as networks get them.
        images: ``(N,)`` position in the batch of each proposal's image.
        objectness: ``(N,)`` probability, as the student's proposal network sees it, that there is an object; 1 for real
            boxes, which are proposals too in training.
        overlap: ``(N,)`` intersection over union with the real box that the proposal was matched with, that of the most
            overlap; 0 in images without boxes.
        real: boxes of the B images.
    """

    corners: Tensor
    images: Tensor
    objectness: Tensor
    overlap: Tensor
    real: Boxes
