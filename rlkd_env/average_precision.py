"""What a detector found in an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in an image.

    Attributes:
        corners: ``(k, 4)`` left, top, right and bottom in pixels of the image's file.
        scores: ``(k,)`` confidence, the higher the surer.
        classes: ``(k,)`` integer classes from 1.
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor
