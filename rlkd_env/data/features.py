"""Feature vectors in place of images, noise in place of random views, and a teacher's logits stored beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlkd_env.data.images import NO_SECOND_VIEW, MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.utils.seeds import seeded_generator

if TYPE_CHECKING:
    from typing_extensions import Self

_DRAWS = 4096
_TABLE_SEED = 0xF0


@dataclass(frozen=True, eq=False)
class FeatureImages(MemoryImages):
    """Vectors of d features, as images of shape ``(1, 1, d)`` with values of any size in ``pixels``.

    A random view of an image is the image plus one of 4,096 vectors of normal noise, which follows from the view's
    seed. So views cost a batch one look-up, where drawing its noise would cost as much as a small student's forward.

    Attributes:
        noise: The standard deviation of the noise; 0 makes the views the images themselves.
        teacher_logits: The teacher's logits ``(n, C)`` on the plain images, or None.
    """

    noise: float = 0.0
    teacher_logits: Tensor | None = None

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.noise > 0

    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Return the vectors ``(N, 1, 1, d)`` at positions ``(N,)``, with a view's noise or without."""
        positions = positions.to(self.pixels.device)
        values = self.pixels[positions]
        if view is None or not self.is_random:
            return values
        return values + self._table[self._drawn(view)[positions]]

    def in_stronger_views(self) -> Self:
        """Refuse: features cannot be changed as images can.

        Raises:
            UsageError: always.
        """
        raise UsageError(NO_SECOND_VIEW.format(reason="images are feature vectors"))

    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at positions ``(m,)``, with their logits."""
        chosen, logits = super().subset(positions), self.teacher_logits
        return chosen if logits is None else replace(chosen, teacher_logits=logits[positions.to(logits.device)])

    def to(self, device: torch.device) -> Self:
        """Return the set on another device."""
        moved, logits = super().to(device), self.teacher_logits
        return moved if logits is None else replace(moved, teacher_logits=logits.to(device))

    def joined(self, other: Self) -> Self:
        """Return the set of this set's images and then another's, with their logits if both have some."""
        own, others = self.teacher_logits, other.teacher_logits
        logits = None if own is None or others is None else torch.cat([own, others])
        return replace(super().joined(other), teacher_logits=logits)

    def fingerprint(self) -> str:
        """Return a hash of all features, labels and the size of the noise."""
        return hashlib.sha256(f"{super().fingerprint()} {self.noise}".encode()).hexdigest()

    @cached_property
    def _table(self) -> Tensor:
        """The vectors of noise ``(4096, 1, 1, d)``."""
        shape = (_DRAWS, *self.image_shape)
        return (self.noise * torch.randn(shape, generator=seeded_generator(_TABLE_SEED))).to(self.pixels.device)

    @cached_property
    def _drawn(self) -> Callable[[int], Tensor]:
        """Maps a view to the rows ``(n,)`` of the table that its images get, cached on the device for the epoch."""
        return lru_cache(maxsize=4)(self._draw)

    def _draw(self, view: int) -> Tensor:
        return torch.randint(_DRAWS, (len(self),), generator=seeded_generator(view)).to(self.pixels.device)
