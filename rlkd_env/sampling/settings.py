"""How exploration and a curriculum choose a run's images; imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import BatchContent
from rlkd_env.utils.options import Bounds, Count, Options, Share


@dataclass(frozen=True)
class Curriculum(Options):
    """How the order from easy to hard unfolds."""

    phases: Annotated[int, Bounds(at_least=3, unit="phases")] = 4
    """Parts of the run, equally long up to an epoch; the first trains on all images and makes the first snapshot."""
    first_share: Share = 0.5
    """Share of the images, the easiest, that the second phase trains on; the last phase trains on all of them."""

    def phase(self, epoch: int, epochs: int) -> int:
        """Return the phase, from 0, of an epoch, from 0."""
        return epoch * self.phases // epochs

    def share(self, phase: int) -> float:
        """Return the share of the images that a phase trains on."""
        if phase == 0:
            return 1.0
        return self.first_share + (1.0 - self.first_share) * (phase - 1) / (self.phases - 2)


@dataclass(frozen=True)
class Exploration(Options):
    """Which instances are mixed, how, and when. The defaults are the constants of the paper's public code.

    Ranks are shares of the training images, sorted from uncertain (0) to confident (1).

    Raises:
        UsageError: if a setting is out of its range, or the two ranges of ranks do not fit together.
    """

    uncertain_ranks: tuple[float, float] = (0.1, 0.2)
    """Ranks of the uncertain images, which are mixed into the confident ones."""
    confident_ranks: tuple[float, float] = (0.8, 0.9)
    """Ranks of the confident images; as many as uncertain ones."""
    first_share: Share = 1.0
    """Share of the uncertain image in the pair of the most uncertain one; between, shares change linearly."""
    last_share: Share = 0.7
    """Share of the uncertain image in the pair of the least uncertain one."""
    first_epoch: Count = 20
    """First epoch that explores, counted from 1; those before it gather the history."""
    last_epoch: Count | None = None
    """Last epoch that may explore; None means the run's last."""
    interval: Count = 20
    """Epochs from one that explores to the next; 1 explores in all of them."""
    batches: BatchContent = "pairs"
    """What an exploring epoch draws: the mixed pairs alone (pairs), or every image with the mixed ones in the place of
    the confident ones (all), as the public code does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in (("uncertain", self.uncertain_ranks), ("confident", self.confident_ranks)):
            if not 0.0 <= low < high <= 1.0:
                raise UsageError(f"the {name} ranks must rise within 0 to 1, not from {low} to {high}")
        if self.uncertain_ranks[1] > self.confident_ranks[0]:
            raise UsageError(
                f"the uncertain ranks, up to {self.uncertain_ranks[1]}, must end before the confident ones begin, "
                f"at {self.confident_ranks[0]}"
            )
        widths = [high - low for low, high in (self.uncertain_ranks, self.confident_ranks)]
        if not math.isclose(*widths, abs_tol=1e-9):
            raise UsageError(f"the ranks must hold equally many images, not shares of {widths[0]:g} and {widths[1]:g}")
        if self.first_epoch < 2:
            raise UsageError(f"exploration needs a history: it begins in epoch 2 or later, not {self.first_epoch}")
        if self.last_epoch is not None and self.last_epoch < self.first_epoch:
            raise UsageError(f"exploration cannot end in epoch {self.last_epoch}, before epoch {self.first_epoch}")

    def explores(self, epoch: int) -> bool:
        """Return whether an epoch, counted from 1, explores."""
        last = math.inf if self.last_epoch is None else self.last_epoch
        return self.first_epoch <= epoch <= last and (epoch - self.first_epoch) % self.interval == 0
