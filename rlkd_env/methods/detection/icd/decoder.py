"""The decoder of instance-conditional distillation: it finds where the teacher's maps speak of a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.methods.detection.icd.queries import Queries, sines_and_cosines


class CrossAttention(nn.Module):
    """Multi-head attention (arXiv 1706.03762) of width D from queries to the positions of maps; H heads divide D."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # the same for all positions, it would cancel in the softmax

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project queries ``(B, K, D)``, keys and values ``(B, S, D)`` and split them into ``(B, H, ..., D / H)``."""
        query, key, value = self.query(queries), self.key(keys), self.value(values)
        return split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, is_shown: Tensor | None = None) -> Tensor:
        """Return what projected queries gather from the positions they attend to, ``(B, K, D)``.

        Those that are not ``is_shown`` ``(B, S)`` get no attention.
        """
        mask = None if is_shown is None else is_shown[:, None, None]
        gathered = F.scaled_dot_product_attention(query, key, value, mask)
        return self.output(gathered.transpose(1, 2).flatten(start_dim=2))


def attention_masks(query: Tensor, key: Tensor, is_shown: Tensor | None = None) -> Tensor:
    """Return the attention ``(B, H, K, S)`` of projected queries ``(B, H, K, D / H)`` to keys ``(B, H, S, D / H)``.

    Positions that are not ``is_shown`` ``(B, S)`` get none.
    """
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if is_shown is not None:
        scores = scores.masked_fill(~is_shown[:, None, None], float("-inf"))
    return scores.softmax(dim=-1)


@dataclass(frozen=True)
class Decoded:
    """A decoder's answer: whether queries are real ``(B, K)`` and the offsets ``(B, K, 4)`` in (0, 1) of their sides.

    These have gradients, unlike the mask ``(B, H, S)``, which is the attention of the real queries to the positions,
    summed over them, and the teacher's values ``(B, H, S, D / H)``.
    """

    real_logits: Tensor
    offsets: Tensor
    mask: Tensor
    values: Tensor


class InstanceDecoder(nn.Module):
    """One transformer decoder layer without self-attention, because the queries are independent of each other.

    Query = MLP(description of the box); key = position + projected sine embedding of the position; value = position.
    What a query gathers is added to it and passes through a feed-forward network with layer norms, as usual; an MLP
    then predicts whether the box is real and where its sides are. The width D of the teacher's maps must be divisible
    by 4 and by the number of heads H.
    """

    def __init__(self, num_classes: int, width: int, heads: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.encoder = _mlp(num_classes + width + 10, width, width)
        self.position = nn.Linear(width, width, bias=False)
        self.attention = CrossAttention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.output_norm = nn.LayerNorm(width)
        self.predictor = _mlp(width, width, 5)

    def forward(self, queries: Queries, features: Tensor, positions: Tensor, is_shown: Tensor | None = None) -> Decoded:
        """Answer K queries per image from all maps' positions ``(B, S, D)`` and their embeddings ``(S, D)``.

        Positions in the borders of images, which are not ``is_shown`` ``(B, S)``, take no part.
        """
        asked = self.encoder(queries.vectors(self.num_classes, self.width))
        query, key, value = self.attention.project(asked, features + self.position(positions), features)
        decoded = self.attention_norm(asked + self.attention(query, key, value, is_shown))
        predicted = self.predictor(self.output_norm(decoded + self.feed_forward(decoded)))
        return Decoded(
            real_logits=predicted[..., 0],
            offsets=predicted[..., 1:].sigmoid(),
            mask=_mask_of_real(query.detach(), key.detach(), queries, is_shown),
            values=value.detach(),
        )


def position_embedding(sizes: Sequence[tuple[int, int]], width: int) -> Tensor:
    """Embed the places ``(S, D)`` of all positions of maps of the given heights and widths as sines and cosines.

    The width D must be divisible by 4; each coordinate takes half of it, the column before the row. A position's place
    is its centre, in the coordinates of the queries; the authors' code places it half a position further and orders the
    channels otherwise, which the learned projections of both sides make up for.
    """
    embeddings = []
    for rows, columns in sizes:
        y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        embeddings.append(sines_and_cosines(points, width // 2).flatten(start_dim=2).flatten(end_dim=1))
    return torch.cat(embeddings)


def shown_positions(shown: Tensor, sizes: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
    """Return which positions ``(B, S)`` of maps of the given heights and widths see more than an image's border.

    What the images of ``height`` and ``width`` pixels show is ``(B, 4)``. Of a border to the right and at the bottom,
    positions are left out as the authors' code does: what is shown is rounded up to whole positions.
    """
    left, top, right, bottom = shown.unsqueeze(-1).unbind(dim=1)
    levels = []
    for rows, columns in sizes:
        y, x = (torch.arange(count + 1, device=shown.device) / count for count in (rows, columns))
        is_row = (y[:-1] * height < bottom) & (y[1:] * height > top)
        is_column = (x[:-1] * width < right) & (x[1:] * width > left)
        levels.append((is_row.unsqueeze(2) & is_column.unsqueeze(1)).flatten(start_dim=1))
    return torch.cat(levels, dim=1)


def split_heads(features: Tensor, heads: int) -> Tensor:
    """Split features ``(B, S, D)`` into heads, ``(B, H, S, D / H)``."""
    return features.unflatten(-1, (heads, -1)).transpose(1, 2)


def _mask_of_real(query: Tensor, key: Tensor, queries: Queries, is_shown: Tensor | None) -> Tensor:
    """Return the summed masks ``(B, H, S)`` of the real queries; masks of all would take six times the memory."""
    masks = attention_masks(query[:, :, : queries.num_real], key, is_shown)
    return (masks * queries.is_real[:, None, : queries.num_real, None]).sum(dim=2)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
