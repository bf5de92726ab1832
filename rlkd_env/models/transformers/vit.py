"""Small vision transformers (Dosovitskiy et al., arXiv 2010.11929), with a distillation token or without one.

The token is DeiT's (Touvron et al., arXiv 2012.12877). Names tell width and patch: ``deit64_patch4`` has tokens of 64
numbers for patches of 4 by 4 pixels, and a distillation token; ``vit64_patch4`` has none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.taps.features import Taps

_SIZES = {64: (4, 2), 192: (12, 3)}
"""Blocks and attention heads by width; the latter are DeiT-Ti's."""
_PATCHES = (2, 4)
_STD = 0.02
_STD_OF_POSITIONS = 0.5
"""About the size of what patches become, so that places are told apart from the first update on: short runs on few
images do not grow them from 0.02, which is usual for large data sets."""


class Block(nn.Module):
    """Self-attention and a hidden layer of four times the width with GELU, each behind a layer norm and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(N, tokens, width)`` to the next ones."""
        split = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split[0], split[1], split[2]
        # Written out because PyTorch's fused attention has no forward mode and no rule for several networks at once.
        shares = ((queries * self.scale) @ keys.transpose(-2, -1)).softmax(dim=-1)
        tokens = tokens + self.projection((shares @ values).transpose(1, 2).flatten(2))
        return tokens + self.hidden(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """Patches as tokens behind one or two tokens that are learned, blocks, a layer norm and linear heads.

    The logits are ``head`` of the class token or, with a distillation token, the mean of that and ``head_dist`` of the
    distillation token, as DeiT's are after its training. A learned token and the embedding of its position are one
    vector, because their sum is all that the network sees. There is no dropout and no stochastic depth.

    Args:
        width: The length of a token.
        patch: The side of a patch in pixels.
        has_distillation_token: Whether there is one beside the class token.
        num_classes: The number C of classes.
        image_shape: The images' channels, height and width.

    Raises:
        UsageError: If the images cannot be divided into such patches, or are a single one.
    """

    def __init__(
        self,
        width: int,
        patch: int,
        has_distillation_token: bool,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        channels, *size = image_shape
        if any(side % patch or side < 2 * patch for side in size):
            raise UsageError(f"images of {size[0]} by {size[1]} pixels cannot be divided into patches of {patch}")
        depth, heads = _SIZES[width]
        self.tokens = 2 if has_distillation_token else 1
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        count = self.tokens + (size[0] // patch) * (size[1] // patch)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=_STD_OF_POSITIONS))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        self.head_dist = nn.Linear(width, num_classes) if has_distillation_token else None
        self.taps = Taps((f"blocks.{depth // 3 - 1}", f"blocks.{2 * depth // 3 - 1}", "norm"), (), "head")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head in filter(None, (self.head, self.head_dist)):
            nn.init.trunc_normal_(head.weight, std=_STD)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.norm(self.blocks(F.pad(patches, (0, 0, self.tokens, 0)) + self.positions))
        logits: Tensor = self.head(tokens[:, 0])
        return logits if self.head_dist is None else (logits + self.head_dist(tokens[:, 1])) / 2


TRANSFORMERS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    f"{family}{width}_patch{patch}": partial(VisionTransformer, width, patch, family == "deit")
    for family in ("vit", "deit")
    for width in _SIZES
    for patch in _PATCHES
}
