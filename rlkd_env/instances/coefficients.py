"""Temperatures of all instances from a few coefficients, around the annealed schedule: a rule without units.

The rule is ``log T_i = log T_anneal + squash(w · x_i)``. T_anneal is what
:class:`~rlkd_env.instances.schedule.AnnealedTemperature` gives the run's batch, ``squash`` keeps the sum within a
factor of it, and ``x_i`` holds a constant 1 and named features of the instance. Around this T_i the instance's own
logits set the temperatures of teacher and student, as they do around T_anneal. Neither the features nor the context
that coefficients are chosen from depend on the size of the logits, the number of classes or the length of the run, so
coefficients ``w`` found on one task can be used on another; and without coefficients the rule is the schedule.
Where several processes share a run, each takes the means over its own share of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.features import FEATURES
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import AnnealedTemperature
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.utils.choices import ANNEAL_SHAPE, COEFFICIENT_FEATURES, COEFFICIENT_WIDTH

_FARTHEST = 2.0
"""Deviations from the batch's mean at which a feature ends."""
_LEAST_DEVIATION = 1e-3
"""Deviation, as a share of the feature's range, below which the instances of a batch count as alike."""
_LARGEST_RATIO = 8.0
"""Ratio of deviations at which the context's figure ends."""


@dataclass(frozen=True)
class CoefficientRule:
    """Coefficients of a run in, the temperatures of its batch out; and what coefficients are chosen from.

    Args:
        features: names in :data:`~rlkd_env.instances.features.FEATURES`, each with a coefficient. A feature is computed
            of logits over the batch's unit, brought to mean 0 and deviation 1 in the batch, and clipped at ±2.
        width: logarithm of the factor within which temperatures stay around the schedule, which they approach softly.
        first: the schedule's temperature at the start, as :class:`~rlkd_env.instances.schedule.AnnealedTemperature`
            takes it; None is the default of annealing.
        last: its temperature at the end, likewise.
        shape: how it falls in between, likewise.
        regions: both temperatures for a detector's regions, likewise.
        cold_start: whether short runs start colder, likewise.
        own_spread: the power with which temperatures follow an image's own logits, likewise.

    Raises:
        UsageError: if a feature is unknown or repeated, the width or a temperature is not positive and finite, the
            shape is unknown, or the power is not in 0 to 1.

    Example:
        >>> rule = CoefficientRule(features=("teacher_relative_spread",), first="2s", last="0.5s")
        >>> teacher_logits = torch.tensor([[6.0, 0.0], [0.0, 2.0]])  # deviations 3 and 1, 2 in the mean
        >>> outputs = InstanceOutputs(torch.zeros(2, 2), teacher_logits, torch.tensor([0, 1]))
        >>> rule.temperature(torch.tensor([[0.0, 0.0]]), outputs).teacher
        tensor([4., 4.])
        >>> rule.temperature(torch.tensor([[0.0, 9.0]]), outputs).teacher  # within a factor of 2
        tensor([8., 2.])
    """

    features: tuple[str, ...] = COEFFICIENT_FEATURES
    width: float = COEFFICIENT_WIDTH
    first: float | str | None = None
    last: float | str | None = None
    shape: str = ANNEAL_SHAPE
    regions: tuple[float | str, float | str] | str | None = None
    cold_start: bool | None = None
    own_spread: float | None = None
    state: InstanceState = field(init=False, repr=False, compare=False)
    schedule: AnnealedTemperature = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise UsageError(f"the width around the schedule must be positive and finite, not {self.width:g}")
        object.__setattr__(self, "state", InstanceState(self.features))
        schedule = AnnealedTemperature(
            self.first, self.last, self.shape, self.regions, self.cold_start, self.own_spread
        )
        object.__setattr__(self, "schedule", schedule)

    @property
    def num_coefficients(self) -> int:
        """Number of coefficients n: that of the constant, then one a feature."""
        return 1 + len(self.features)

    @property
    def context_names(self) -> tuple[str, ...]:
        """What the numbers of a context are."""
        return ("progress", "logit_correlation", "agreement", "relative_spread")

    def context(self, outputs: InstanceOutputs) -> Tensor:
        """Return what a policy knows of every run: ``(K, d)`` values in ``[-1, 1]``.

        They are the run's progress, and over its batch the mean correlation of the student's with the teacher's
        logits, the share of instances of which both predict the same class, and the logarithm of the ratio of their
        mean standard deviations, which is 1 where the student's is eight times the teacher's.
        """
        correlation, agreement = (
            outputs.by_run(FEATURES[name].compute(outputs).float()).mean(dim=1)
            for name in ("logit_correlation", "agreement")
        )
        spread = outputs.by_run(outputs.student_logits.detach().float().std(dim=-1, correction=0)).mean(dim=1)
        ratio = (spread / outputs.teacher_unit.squeeze(1)).log() / math.log(_LARGEST_RATIO)
        progress = torch.zeros_like(ratio) + (2.0 * outputs.progress - 1.0)
        context = torch.stack([progress, correlation, 2.0 * agreement - 1.0, ratio], dim=1)
        return context.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0).clamp(-1.0, 1.0)

    def temperature(
        self, coefficients: Tensor, outputs: InstanceOutputs, bounds: TemperatureRange | None = None
    ) -> Temperature:
        """Return the temperatures of K runs' instances for coefficients ``(K, n)``; bounds are those of T_i."""
        weighted = torch.einsum("kbf,kf->kb", outputs.by_run(self.inputs(outputs)), coefficients[:, 1:])
        residual = self.width * torch.tanh((coefficients[:, :1] + weighted) / self.width)
        temperature = (self.schedule.log_by_run(outputs) + residual).exp().flatten()
        if bounds is not None:
            temperature = temperature.clamp(bounds.minimum, bounds.maximum)
        return self.schedule.around(temperature, outputs)

    def inputs(self, outputs: InstanceOutputs) -> Tensor:
        """Return the features ``(N, n - 1)``, of mean 0 and deviation 1 in every run's batch but for the clipping.

        A feature that is the same for all instances of a batch is 0, and so is all that is not finite.
        """
        unit = outputs.teacher_unit.repeat_interleave(len(outputs.labels) // outputs.num_runs, dim=0)
        student, teacher = outputs.student_logits.detach() / unit, outputs.teacher_logits / unit
        values = outputs.by_run(self.state(replace(outputs, student_logits=student, teacher_logits=teacher)))
        least = _LEAST_DEVIATION * (self.state.high - self.state.low)
        centred = values - values.mean(dim=1, keepdim=True)
        deviation = values.std(dim=1, keepdim=True, correction=0).maximum(least)
        return (centred / deviation).clamp(-_FARTHEST, _FARTHEST).flatten(0, 1)
