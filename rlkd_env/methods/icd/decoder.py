"""The decoder of instance-conditional distillation: where in the teacher's maps does it say what of a box?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.methods.icd.queries import Queries, sines_and_cosines


class CrossAttention(nn.Module):
    """Attention of several heads from queries to the positions of maps (arXiv 1706.03762).

    Args:
        width: D of queries, positions and result.
        heads: H, which divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # one for all positions would fall out of the softmax

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``(B, K, D)``, keys and values ``(B, S, D)`` as the heads see them: ``(B, H, ..., D / H)``."""
        query, key, value = self.query(queries), self.key(keys), self.value(values)
        return split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what queries gather from the positions that they attend to, ``(B, K, D)``; all projected."""
        return self.output(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(start_dim=2))


def attention_masks(query: Tensor, key: Tensor) -> Tensor:
    """Return the shares of its attention that each query pays to the positions.

    Args:
        query: ``(B, H, K, D / H)``, projected.
        key: ``(B, H, S, D / H)``, likewise.

    Returns:
        ``(B, H, K, S)``, whose sum over the positions is 1.
    """
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)


@dataclass(frozen=True)
class Decoded:
    """What a decoder makes of queries and the teacher's maps.

    Attributes:
        real_logits: ``(B, K)`` that a query is real, with gradient to the decoder.
        offsets: ``(B, K, 4)`` of the boxes' sides from the queries' points, in (0, 1), likewise.
        mask: ``(B, H, S)`` attention of the real queries to the positions, summed over them; no gradient.
        values: ``(B, H, S, D / H)`` of the teacher; no gradient.
    """

    real_logits: Tensor
    offsets: Tensor
    mask: Tensor
    values: Tensor


class InstanceDecoder(nn.Module):
    """A layer of a transformer's decoder without self-attention, as each query is a question of its own.

    Query = MLP(description of the box); key = position + projected sine embedding of the position; value = position.
    What was gathered is added to the query and goes, as usual, through a feed-forward network, with layer norms; from
    the result an MLP tells whether the box is real and where its sides are.

    Args:
        num_classes: C of the objects, without the background.
        width: D of the teacher's maps, divisible by 4.
        heads: H, which divides the width.
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

    def forward(self, queries: Queries, features: Tensor, positions: Tensor) -> Decoded:
        """Answer queries from the teacher's maps.

        Args:
            queries: K an image.
            features: ``(B, S, D)`` the positions of all maps, no gradient.
            positions: ``(S, D)`` their embedding.
        """
        asked = self.encoder(queries.vectors(self.num_classes, self.width))
        query, key, value = self.attention.project(asked, features + self.position(positions), features)
        decoded = self.attention_norm(asked + self.attention(query, key, value))
        predicted = self.predictor(self.output_norm(decoded + self.feed_forward(decoded)))
        return Decoded(
            real_logits=predicted[..., 0],
            offsets=predicted[..., 1:].sigmoid(),
            mask=_mask_of_real(query.detach(), key.detach(), queries),
            values=value.detach(),
        )


def position_embedding(sizes: Sequence[tuple[int, int]], width: int) -> Tensor:
    """Describe where in the image the positions of maps are, by sines and cosines of their middle.

    Args:
        sizes: height and width of each map.
        width: D, divisible by 4; half of it a coordinate.

    Returns:
        ``(S, D)`` for the S positions of all maps, row by row.
    """
    embeddings = []
    for rows, columns in sizes:
        y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        embeddings.append(sines_and_cosines(points, width // 2).flatten(start_dim=2).flatten(end_dim=1))
    return torch.cat(embeddings)


def split_heads(features: Tensor, heads: int) -> Tensor:
    """Return features ``(B, S, D)`` as ``(B, H, S, D / H)``."""
    return features.unflatten(-1, (heads, -1)).transpose(1, 2)


def _mask_of_real(query: Tensor, key: Tensor, queries: Queries) -> Tensor:
    """Return the sum of the real queries' masks, ``(B, H, S)``; all queries' would take six times the memory."""
    masks = attention_masks(query[:, :, : queries.num_real], key)
    return (masks * queries.is_real[:, None, : queries.num_real, None]).sum(dim=2)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
