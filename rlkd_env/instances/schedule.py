"""The annealed schedule of temperatures, in units of how far logits spread: the teacher's, and each instance's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.utils.choices import ANNEAL_IMAGES, ANNEAL_LONG_RUN, ANNEAL_OWN_SPREAD, ANNEAL_REGIONS, ANNEAL_SHAPE
from rlkd_env.utils.options import split_temperature

_BEFORE_SHAPES: dict[str, Any] = {
    "first": "3s",
    "last": "0.35s",
    "shape": "linear",
    "regions": (2.0, 0.5),
    "cold_start": False,
    "own_spread": 0.0,
}
"""The only schedule that there was when files did not tell its shape."""

SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2.0,
}
"""How far a schedule has gone from its start to its end, from 0 to 1, by the run's progress."""

_SETS_IN = 0.2
"""Share of the run after which temperatures follow the logits' own deviation with the whole power. At the start a
student's logits hardly differ, and temperatures as small would make some students collapse."""
_SMALLEST_SPREAD = 0.05
"""Deviation, in units of the teacher's mean one, below which temperatures do not follow it."""


@dataclass(frozen=True)
class AnnealedTemperature:
    """Temperatures that fall along a run: ``log T = (1 - share) · log first + share · log last``.

    The share is the run's progress, or the part of a half cosine that lies behind it, whose ends are flat. Around this
    T an instance's own logits ``z`` of either network set its temperature, ``T · (std(z) / unit)^own_spread``, where
    the unit is the mean of the teacher's deviations; the loss is weighted by T². A power of 0 is plain KD at T, one of
    1 compares standardised logits, as LSKD does (arXiv 2403.01427). It rises from 0 in the first fifth of the run.

    Args:
        first: temperature of the run's first update: a number, or with suffix s a multiple of ``outputs.teacher_unit``.
            None takes the default, :data:`~rlkd_env.utils.choices.ANNEAL_IMAGES`.
        last: temperature at its end, likewise.
        shape: how it falls in between: a name in :data:`SHAPES`.
        regions: both ends for a detector's regions, as two values or a text such as ``2:0.5``; None takes ``first`` and
            ``last``, and where those are None, :data:`~rlkd_env.utils.choices.ANNEAL_REGIONS`.
        cold_start: whether a short run of images starts colder, at ``first · √(min(1, epochs / 10) · min(1, updates for
            each class / 12))``, because there is no time to match soft targets first. None does so unless ``first`` is
            given.
        own_spread: the power for images; regions have none. None takes
            :data:`~rlkd_env.utils.choices.ANNEAL_OWN_SPREAD`.

    Raises:
        UsageError: if a temperature is not positive and finite, the shape is unknown, or the power is not in 0 to 1.

    Example:
        >>> import torch
        >>> outputs = InstanceOutputs(torch.zeros(2, 2), torch.tensor([[6.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> AnnealedTemperature("2s", "0.5s").of(outputs)  # deviations 3 and 1, 2 in the mean
        tensor([4., 4.])
    """

    first: float | str | None = None
    last: float | str | None = None
    shape: str = ANNEAL_SHAPE
    regions: tuple[float | str, float | str] | str | None = None
    cold_start: bool | None = None
    own_spread: float | None = None

    def __post_init__(self) -> None:
        power = self.own_spread
        if power is not None and (isinstance(power, bool) or not isinstance(power, int | float) or not 0 <= power <= 1):
            raise UsageError(f"own_spread must be a number from 0 to 1, not {power}")
        if self.regions is not None:
            ends = self.regions.split(":") if isinstance(self.regions, str) else self.regions
            if not isinstance(ends, tuple | list) or len(ends) != 2:
                raise UsageError(f"the temperatures of regions must be two, such as 2:0.5, not {self.regions}")
            object.__setattr__(self, "regions", tuple(ends))
        for bound in (self.first, self.last, *(self.regions or ())):
            if bound is not None:
                split_temperature(bound)
        if not isinstance(self.cold_start, bool | None):
            raise UsageError(f"cold_start must be True, False or None, not {self.cold_start}")
        if self.shape not in SHAPES:
            raise unknown_name("shape", self.shape, SHAPES)

    def log_by_run(self, outputs: InstanceOutputs) -> Tensor:
        """Return the logarithm of K runs' temperatures, ``(K, 1)``."""
        updates_per_class = outputs.updates / outputs.num_classes
        constant, relative = self.terms(float(outputs.progress), outputs.are_regions, outputs.epochs, updates_per_class)
        return constant + relative * outputs.teacher_unit.log()

    def of(self, outputs: InstanceOutputs) -> Tensor:
        """Return T for the instances of a batch, ``(N,)``; it is the same for all of a run's."""
        by_run = self.log_by_run(outputs).exp()
        return by_run.expand(-1, len(outputs.labels) // outputs.num_runs).flatten()

    def temperature(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures of a batch, each instance's by its own logits."""
        numbers = torch.promote_types(outputs.student_logits.dtype, torch.float32)
        return self.around(self.of(outputs).to(numbers), outputs)

    def around(self, temperature: Tensor, outputs: InstanceOutputs) -> Temperature:
        """Return temperatures that follow the instances' own logits around others ``(N,)`` than the schedule's T."""
        power = self.power(float(outputs.progress), outputs.are_regions)
        return _following_spread(temperature, power, outputs) if power else Temperature.shared(temperature)

    def power(self, progress: float, are_regions: bool) -> float:
        """Return the power with which temperatures follow the logits' own deviation, at a point of the run."""
        return 0.0 if are_regions else min(1.0, progress / _SETS_IN) * self._whole_power

    def terms(
        self, progress: float, are_regions: bool, epochs: float = math.inf, updates_per_class: float = math.inf
    ) -> tuple[float, float]:
        """Return log T without the unit, and how often the logarithm of the unit is added to it.

        Both are linear in what :data:`SHAPES` makes of the progress. Epochs and updates are those of the whole run.
        """
        over, colder = SHAPES[self.shape](progress), 0.0
        if not are_regions and self._starts_cold:
            lengths = zip((max(epochs, 1.0), max(updates_per_class, 1.0)), ANNEAL_LONG_RUN, strict=True)
            colder = sum(min(0.0, math.log(length / long) / 2.0) for length, long in lengths)
        (first, is_first_relative), (last, is_last_relative) = map(split_temperature, self.ends(are_regions))
        constant = (1.0 - over) * (math.log(first) + colder) + over * math.log(last)
        return constant, (1.0 - over) * is_first_relative + over * is_last_relative

    def ends(self, are_regions: bool) -> tuple[float | str, float | str]:
        """Return the temperatures at the start and at the end, defaults filled in."""
        if are_regions and isinstance(self.regions, tuple):  # as it is once it was checked
            return self.regions
        first, last = ANNEAL_REGIONS if are_regions else ANNEAL_IMAGES
        return first if self.first is None else self.first, last if self.last is None else self.last

    def description(self) -> dict[str, Any]:
        """Return the schedule as plain values, defaults filled in: what a file keeps, so that they may change."""
        first, last = self.ends(are_regions=False)
        regions = self.ends(are_regions=True)
        cold_start, own_spread = self._starts_cold, self._whole_power
        own = replace(self, first=first, last=last, regions=regions, cold_start=cold_start, own_spread=own_spread)
        return asdict(own)

    @property
    def _whole_power(self) -> float:
        return ANNEAL_OWN_SPREAD if self.own_spread is None else self.own_spread

    @property
    def _starts_cold(self) -> bool:
        return self.first is None if self.cold_start is None else self.cold_start


def _following_spread(temperature: Tensor, power: float, outputs: InstanceOutputs) -> Temperature:
    """Return temperatures around those of a batch ``(N,)`` that follow the deviations of each instance's own logits."""
    unit = outputs.teacher_unit.repeat_interleave(len(outputs.labels) // outputs.num_runs, dim=0)

    def following(deviation: Tensor) -> Tensor:
        return temperature * (deviation / unit.squeeze(1)).clamp(min=_SMALLEST_SPREAD) ** power

    student = outputs.student_logits.detach().to(temperature.dtype).std(dim=-1, correction=0)
    return Temperature(following(outputs.teacher_deviation), following(student), temperature.square())


def described_schedule(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a saved schedule; what it does not tell is as schedules were at that time."""
    if "shape" in description:
        return {"own_spread": _BEFORE_SHAPES["own_spread"], **description}
    ends = {end: description[end] for end in ("first", "last") if description.get(end) is not None}
    regions = tuple(
        ends.get(end, usual) for end, usual in zip(("first", "last"), _BEFORE_SHAPES["regions"], strict=True)
    )
    return {**_BEFORE_SHAPES, "regions": regions, **ends}
