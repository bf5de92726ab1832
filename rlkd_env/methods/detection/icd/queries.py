"""The queries of instance-conditional distillation: real boxes, with fake ones among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.boxes import Boxes

_FAKES_A_BOX = 5
_MOST_QUERIES = 300
_JITTER = 0.3
_MARGIN = 0.03
_SCALE_BINS = 5
_SMALLEST_SCALE = 0.04
_LONGEST_WAVE = 10000.0


@dataclass(frozen=True)
class Queries:
    """The boxes that a decoder is asked about, K per image, in fractions of the image's width and height.

    Attributes:
        classes: The classes ``(B, K)`` as int64 from 0, without the background.
        corners: Left, top, right and bottom ``(B, K, 4)``.
        sizes: Width and height ``(B, K, 2)``, at least a pixel.
        centres: Points near the boxes' centres ``(B, K, 2)`` from which the decoder must find the boxes.
        is_real: Whether there is such an object in the image ``(B, K)``.
        is_used: Whether the decoder is asked ``(B, K)``; the other entries are padding.
        num_real: All real queries are among this many first queries of each image.
    """

    classes: Tensor
    corners: Tensor
    sizes: Tensor
    centres: Tensor
    is_real: Tensor
    is_used: Tensor
    num_real: int

    @property
    def offsets(self) -> Tensor:
        """The distances ``(B, K, 4)`` from the points to the boxes' left, top, right and bottom."""
        return torch.cat([self.centres - self.corners[..., :2], self.corners[..., 2:] - self.centres], dim=-1)

    def vectors(self, num_classes: int, width: int) -> Tensor:
        """Describe the boxes ``(B, K, C + width + 10)`` for C object classes.

        These are the class (one-hot), the point (sines and cosines), and width and height (one-hot in five bins each).
        """
        classes = F.one_hot(self.classes, num_classes).to(self.centres.dtype)
        points = sines_and_cosines(self.centres, width // 2).flatten(start_dim=-2)
        scales = F.one_hot(scale_bins(self.sizes), _SCALE_BINS).to(self.centres.dtype).flatten(start_dim=-2)
        return torch.cat([classes, points, scales], dim=-1)


def sample_queries(boxes: Boxes, height: int, width: int) -> Queries:
    """Turn the real boxes of B images into queries and add five fake ones for each, from the global generator.

    A fake box takes its class and size from a real box of the batch (the authors' code uses COCO's frequencies) and its
    centre from anywhere in the image; it is clipped to the image. The point of a box, real or fake, lies up to 0.3 of
    its width and height from its centre. Crowds are left out, and so are the fake boxes beyond 300 queries per image.
    The boxes and the images' height and width are in pixels.
    """
    size = torch.tensor([width, height], dtype=boxes.corners.dtype, device=boxes.device)
    real_corners, real_classes, is_real = _real_first(boxes)
    num_real, num_fakes = is_real.shape[1], min(_FAKES_A_BOX * is_real.shape[1], _MOST_QUERIES)
    real_corners = (real_corners / size.repeat(2)).clamp(0.0, 1.0)
    counts = is_real.sum(dim=1, keepdim=True)
    fakes = torch.minimum(_FAKES_A_BOX * counts, (_MOST_QUERIES - counts).clamp(min=0))

    sources = _draw_boxes(is_real, num_fakes)
    sizes = (real_corners[..., 2:] - real_corners[..., :2]).flatten(end_dim=1)[sources]
    centres = _MARGIN + (1.0 - 2.0 * _MARGIN) * torch.rand_like(sizes)
    fake_corners = torch.cat([centres - sizes / 2.0, centres + sizes / 2.0], dim=-1).clamp(0.0, 1.0)

    corners = torch.cat([real_corners, fake_corners], dim=1)
    sizes = torch.maximum(corners[..., 2:] - corners[..., :2], 1.0 / size)
    jitter = _JITTER * (2.0 * torch.rand_like(sizes) - 1.0)
    is_used = torch.arange(num_fakes, device=boxes.device) < fakes
    return Queries(
        classes=torch.cat([real_classes, real_classes.flatten()[sources]], dim=1),
        corners=corners,
        sizes=sizes,
        centres=(corners[..., :2] + corners[..., 2:]) / 2.0 + jitter * sizes,
        is_real=torch.cat([is_real, torch.zeros_like(is_used)], dim=1),
        is_used=torch.cat([is_real, is_used], dim=1),
        num_real=num_real,
    )


def sines_and_cosines(positions: Tensor, channels: int) -> Tensor:
    """Describe positions ``(...)`` in [0, 1] by an even number of sines, then cosines, ``(..., channels)``.

    The wavelengths form a geometric series from 1 to almost 10000.
    """
    steps = torch.arange(channels // 2, dtype=positions.dtype, device=positions.device) / (channels // 2)
    angles = positions.unsqueeze(-1) * (2.0 * math.pi / _LONGEST_WAVE**steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def scale_bins(sizes: Tensor) -> Tensor:
    """Return the bins ``(...)``, int64 from 0 to 4, of positive lengths ``(...)`` in fractions of the image's side.

    The edges are 0.08, 0.16, 0.32 and 0.64, which are the authors' 64, 128, 256 and 512 pixels at a side of 800.
    """
    return (sizes / _SMALLEST_SCALE).log2().clamp(0.0, _SCALE_BINS - 1.0).long()


def _real_first(boxes: Boxes) -> tuple[Tensor, Tensor, Tensor]:
    """Return corners, classes from 0 and whether there is a box, padded to the batch's largest number of boxes.

    It is at least 1. Data sets pad to the largest number in all images; finding the batch's own number costs a
    synchronisation, but far less than the extra queries would.
    """
    is_real = F.pad(boxes.is_single, (0, 1))
    corners, classes = F.pad(boxes.corners, (0, 0, 0, 1)), F.pad(boxes.classes, (0, 1))
    order = is_real.byte().argsort(dim=1, descending=True, stable=True)[:, : max(int(is_real.sum(dim=1).max()), 1)]
    is_real = is_real.gather(1, order)
    classes = torch.where(is_real, classes.gather(1, order) - 1, 0)
    return corners.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)), classes, is_real


def _draw_boxes(is_real: Tensor, count: int) -> Tensor:
    """Draw ``count`` real boxes of the batch per image, as positions ``(B, count)`` in its flattened boxes."""
    weights = (is_real | ~is_real.any()).flatten().float()  # without any real box, empty places are drawn
    return torch.multinomial(weights, len(is_real) * count, replacement=True).view(-1, count)
