"""Maps of features in the forms that networks give them: channels first, channels last, or as tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def has_aspect(height: int, width: int, image_size: tuple[int, int]) -> bool:
    """Return whether a map has the aspect ratio of an image, up to rounding unless images are square."""
    image_height, image_width = image_size
    rounding = 0 if image_height == image_width else 1.5 * max(image_height, image_width)
    return abs(height * image_width - width * image_height) <= rounding


def token_grid(count: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the largest grid with an image's aspect ratio among so many tokens."""
    height, width = image_size
    rows = max(1, math.isqrt(count * height // width))
    return rows, max(1, min(count // rows, round(rows * width / height)))


def as_map(values: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return what a stage gives as a map ``(N, channels, height, width)``.

    Values ``(N, tokens, channels)`` are a grid in reading order behind the tokens that stand for no place, such as the
    class token. Values of four dimensions are channels last if only then they have the image's aspect ratio.
    """
    if values.dim() == 3:
        height, width = token_grid(values.shape[1], image_size)
        return values[:, values.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))
    return values.permute(0, 3, 1, 2) if is_channels_last(values, image_size) else values


def like_output(maps: Tensor, output: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return a map ``(N, channels, height, width)`` in the form of the output that it stands for."""
    if output.dim() == 3:
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : output.shape[1] - tokens.shape[1]], tokens], dim=1)
    return maps.permute(0, 2, 3, 1) if is_channels_last(output, image_size) else maps


def is_channels_last(values: Tensor, image_size: tuple[int, int]) -> bool:
    """Return whether values of four dimensions have the image's aspect ratio only with their channels last."""
    _, first, second, last = values.shape
    return not has_aspect(second, last, image_size) and has_aspect(first, second, image_size)
