"""The preprocessing that turns pixels into a network's input, and the random views of training images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.augmentation.changes import NO_CHANGES, ImageChanges
from rlkd_env.utils.randomness import generators_kept, seed_generators
from rlkd_env.utils.seeds import mixed_seed, seeded_generator


@dataclass(frozen=True)
class Preprocessing:
    """Turns pixels into a network's input, on the device and for a whole batch at once.

    Attributes:
        mean: The mean of each channel, for pixels in ``[0, 1]``; if empty, images are not normalised.
        std: The standard deviation of each channel.
        crop_padding: The width in pixels of a black border around an image, out of which random views of the original
            size are cropped; 0 disables cropping.
        flip: Whether half of the random views are mirrored.
        changes: Random changes of single images, of which random views have some.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop_padding: int = 0
    flip: bool = False
    changes: ImageChanges = NO_CHANGES

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalise pixels ``(N, channels, height, width)``, uint8 or float32 in ``[0, 1]``."""
        scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
        values = pixels.float()
        if not self.mean:
            return values / scale if scale != 1.0 else values
        mean, std = (_per_channel(constants, scale, pixels.device) for constants in (self.mean, self.std))
        return (values - mean) / std

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.crop_padding > 0 or self.flip or self.changes.are_made

    def draw(self, count: int, seed: int) -> Tensor:
        """Draw the parameters ``(count, 3)`` of random views: shift down, shift right, whether to mirror."""
        generator = seeded_generator(seed)
        shifts = torch.randint(2 * self.crop_padding + 1, (count, 2), generator=generator)
        mirrored = torch.randint(2, (count, 1), generator=generator) * int(self.flip)
        return torch.cat([shifts, mirrored], dim=1)

    def augment(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """Apply drawn parameters ``(N, 3)`` to images ``(N, channels, height, width)``."""
        down, right, is_mirrored = drawn.unbind(dim=1)
        if self.crop_padding:
            height, width = pixels.shape[-2:]
            padded = F.pad(pixels, [self.crop_padding] * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: only the windows taken are copied
            pixels = windows[torch.arange(len(pixels), device=pixels.device), :, down, right]
        if self.flip:
            pixels = torch.where(is_mirrored.bool().view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels

    def vary(self, pixels: Tensor, view: int, positions: Tensor) -> Tensor:
        """Change images ``(N, channels, height, width)`` at positions ``(N,)``, as a view's seed has it."""
        if not self.changes.are_made:
            return pixels
        with generators_kept():
            changed = []
            for image, position in zip(pixels, positions.tolist(), strict=True):
                seed_generators(mixed_seed(view, position))
                changed.append(self.change(image))
        return torch.stack(changed)

    def change(self, image: Tensor) -> Tensor:
        """Change one image ``(channels, height, width)``, drawing from torch's generator."""
        return self.changes(image, self.mean)


PLAIN = Preprocessing()
"""Pixels as they are, from 0 to 1."""


@lru_cache(maxsize=64)
def _per_channel(constants: tuple[float, ...], scale: float, device: torch.device) -> Tensor:
    """Return constants ``(channels, 1, 1)``, cached on the device so that no batch waits for a transfer."""
    return torch.tensor(constants, device=device).view(-1, 1, 1) * scale
