"""The annealed schedule of temperatures, in units of what the teacher's logits spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import parse_bound
from rlkd_env.utils.choices import ANNEAL_IMAGES, ANNEAL_REGIONS

_SMALLEST_UNIT = 1e-6


def teacher_unit(outputs: InstanceOutputs) -> Tensor:
    """Return the unit of relative temperatures in a batch, ``(K, 1)`` for K runs.

    It is the mean over the run's instances of the standard deviation, over the classes, of the teacher's logits. Where
    several processes share a run, each takes the mean over its own share of the batch.
    """
    logits = outputs.teacher_logits
    deviation = logits.to(torch.promote_types(logits.dtype, torch.float32)).std(dim=-1, correction=0)
    return outputs.by_run(deviation).mean(dim=1, keepdim=True).clamp(min=_SMALLEST_UNIT)


@dataclass(frozen=True)
class AnnealedTemperature:
    """A temperature that falls along a run: ``log T = (1 - progress) · log first + progress · log last``.

    Args:
        first: temperature of the run's first update: a number, or with suffix s a multiple of :func:`teacher_unit`.
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
            if bound is not None and not 0 < parse_bound(bound, 1.0) < math.inf:
                raise UsageError(f"the temperature must be positive and finite, not {bound}")

    def log_by_run(self, outputs: InstanceOutputs) -> Tensor:
        """Return the logarithm of K runs' temperatures, ``(K, 1)``."""
        constant, relative = self.terms(float(outputs.progress), outputs.are_regions)
        return constant + relative * teacher_unit(outputs).log()

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
        ends = ((1.0 - progress, first), (progress, last))
        constant = sum(share * math.log(parse_bound(bound, 1.0)) for share, bound in ends)
        return constant, sum(share for share, bound in ends if _is_relative(bound))


def _is_relative(bound: float | str) -> bool:
    return str(bound).strip().lower().endswith("s")
