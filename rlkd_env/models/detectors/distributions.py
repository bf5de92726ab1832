"""Boxes as a distribution over bins for every edge (general distribution: Li et al., arXiv 2006.04388)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 10.0
"""Codes are so many times an edge's distance in sizes of the region, as those of torchvision's box coder are."""
FIRST, LAST = -0.5 * SCALE, 1.0 * SCALE
"""Codes of the first and the last bin. A region that overlaps a box by a half has each of its edges within these."""


class EdgeCoder:
    """Codes boxes by how far their edges lie outside a region's, in its widths and heights; torchvision's interface.

    The four numbers are of the left, top, right and bottom edge; those of an edge inside the region are negative.
    """

    def encode(self, reference_boxes: list[Tensor], proposals: list[Tensor]) -> list[Tensor]:
        """Return the codes ``(n, 4)`` of boxes ``(n, 4)`` relative to as many regions ``(n, 4)``, image by image."""
        return [
            SCALE * _outward(box - region) / _sizes(region)
            for box, region in zip(reference_boxes, proposals, strict=True)
        ]

    def decode(self, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return the boxes ``(n, K, 4)`` of K codes ``(n, 4 K)`` for each region, of which every image has some."""
        regions = torch.cat(boxes).unsqueeze(1)
        return regions + _outward(rel_codes.unflatten(-1, (-1, 4)) / SCALE * _sizes(regions))


class DistributionPredictor(nn.Module):
    """torchvision's classifier of regions with, for each edge, logits of n + 1 bins in place of a number.

    An edge's code is the expectation over the bins, whose codes run evenly from :data:`FIRST` to :data:`LAST`. As in
    the paper, all classes share the edges. Modules are named as torchvision's.
    """

    def __init__(self, in_channels: int, num_classes: int, bins: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4 * (bins + 1))
        self.bins = bins
        self.register_buffer("codes", torch.linspace(FIRST, LAST, bins + 1), persistent=False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits ``(n, C + 1)`` and, for every class, the codes ``(n, 4 C + 4)`` of regions' features."""
        return self.cls_score(pooled), self.deltas(self.edges(pooled))

    def edges(self, pooled: Tensor) -> Tensor:
        """Return the logits ``(n, 4, bins + 1)`` of the edges for features ``(n, D)``."""
        return self.bbox_pred(pooled).unflatten(-1, (4, -1))

    def deltas(self, edges: Tensor) -> Tensor:
        """Return the expected codes ``(n, 4 C + 4)`` of every class, which are the same for all."""
        expected = edges.softmax(dim=-1) @ cast(Tensor, self.codes).to(edges.dtype)
        return expected.repeat(1, self.cls_score.out_features)


def distribution_focal_loss(edges: Tensor, targets: Tensor) -> Tensor:
    """Return each edge's loss ``(n, 4)`` of logits ``(n, 4, bins + 1)`` for codes ``(n, 4)`` (equation 6 of the paper).

    It is the cross-entropy with the two bins around the code, by how near each of them is. A code beyond the bins
    counts as the last one on its side.
    """
    bins = edges.shape[-1] - 1
    place = ((targets - FIRST) / (LAST - FIRST) * bins).clamp(0.0, float(bins))
    lower = place.floor().clamp(max=bins - 1)
    share = (place - lower).unsqueeze(-1)
    losses = -F.log_softmax(edges, dim=-1)
    below, above = (losses.gather(-1, (lower.long() + step).unsqueeze(-1)) for step in (0, 1))
    return ((1.0 - share) * below + share * above).squeeze(-1)


def _sizes(regions: Tensor) -> Tensor:
    """Return width, height, width and height ``(..., 4)`` of regions ``(..., 4)``."""
    sizes = regions[..., 2:] - regions[..., :2]
    return torch.cat([sizes, sizes], dim=-1)


def _outward(shifts: Tensor) -> Tensor:
    """Return shifts ``(..., 4)`` of edges to the right and to the bottom as shifts outwards, or the other way round."""
    return torch.cat([-shifts[..., :2], shifts[..., 2:]], dim=-1)
