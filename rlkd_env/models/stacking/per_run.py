"""A tensor of every one of K runs, and the two forms that it is computed in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PerRun:
    """A tensor ``(N, ...)`` of every run.

    Attributes:
        values: one run after another, ``(K, N, ...)``; or merged, ``(N, K · C, ...)``: one run's channels beside
            another's, as grouped convolutions take them.
        count: the number of runs K.
        is_merged: which of both.
    """

    values: Tensor
    count: int
    is_merged: bool = False

    @property
    def shape(self) -> torch.Size:
        """The shape of one run's tensor."""
        if not self.is_merged:
            return self.values.shape[1:]
        count, channels, *rest = self.values.shape
        return torch.Size((count, channels // self.count, *rest))

    @property
    def apart(self) -> Tensor:
        """The values ``(K, N, ...)``; a view."""
        return self.values.unflatten(1, (self.count, -1)).transpose(0, 1) if self.is_merged else self.values

    @property
    def merged(self) -> Tensor:
        """The values ``(N, K · C, ...)``; channels that lie side by side in memory still do."""
        if self.is_merged:
            return self.values
        if self.values.dim() == 5 and self.values.stride(2) == 1:
            return self.values.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)
        return self.values.transpose(0, 1).flatten(1, 2)


def is_shared(values: Tensor) -> bool:
    """Whether values ``(K, ...)`` are the same for all runs, as those of ``torch.expand`` are."""
    return values.stride(0) == 0
