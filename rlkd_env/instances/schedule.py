"""The annealed schedule of temperatures, in units of what the teacher's logits spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.utils.choices import ANNEAL_IMAGES, ANNEAL_REGIONS
from rlkd_env.utils.options import split_temperature


@dataclass(frozen=True)
class AnnealedTemperature:
    """A temperature that falls along a run: ``log T = (1 - progress) · log first + progress · log last``.

    Args:
        first: temperature of the run's first update: a number, or with suffix s a multiple of ``outputs.teacher_unit``.
            None takes 3s, and for a detector's regions 2.
        last: temperature at its end, likewise. None takes 0.35s, and for regions 0.5.

    Raises:
        UsageError: if a temperature is not positive and finite.

    Example:
        >>> outputs = InstanceOutputs(torch.zeros(2, 2), torch.tensor([[6.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> AnnealedTemperature("2s", "0.5s").of(outputs)  # deviations 3 and 1, 2 in the mean
        tensor([4., 4.])
    """

    first: float | str | None = None
    last: float | str | None = None

    def __post_init__(self) -> None:
        for bound in (self.first, self.last):
            if bound is not None:
                split_temperature(bound)

    def log_by_run(self, outputs: InstanceOutputs) -> Tensor:
        """Return the logarithm of K runs' temperatures, ``(K, 1)``."""
        constant, relative = self.terms(float(outputs.progress), outputs.are_regions)
        return constant + relative * outputs.teacher_unit.log()

    def of(self, outputs: InstanceOutputs) -> Tensor:
        """Return the temperatures of a batch, ``(N,)``; they are the same for all of a run's instances."""
        by_run = self.log_by_run(outputs).exp()
        return by_run.expand(-1, len(outputs.labels) // outputs.num_runs).flatten()

    def terms(self, progress: float, are_regions: bool) -> tuple[float, float]:
        """Return log T without the unit, and how often the logarithm of the unit is added to it.

        Both are linear in the progress.
        """
        first, last = ANNEAL_REGIONS if are_regions else ANNEAL_IMAGES
        first, last = first if self.first is None else self.first, last if self.last is None else self.last
        ends = [(share, *split_temperature(bound)) for share, bound in ((1.0 - progress, first), (progress, last))]
        constant = sum(share * math.log(value) for share, value, _ in ends)
        return constant, sum(share for share, _, in_deviations in ends if in_deviations)
