"""Temperatures of all instances from a few coefficients: a rule whose figures have no unit.

The rule is ``log T_i = log(unit) + squash(w · x_i)``: the unit is the mean standard deviation of the teacher's logits
in the run's batch, and ``x_i`` holds a constant 1 and named features of the instance. Nothing in it depends on the size
of the teacher's logits or on the number of classes, so coefficients ``w`` found on one task can be used on another.
Where several processes share a run, each takes the means over its own share of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.state import InstanceState
from rlkd_env.utils.choices import COEFFICIENT_FEATURES

_LEAST_LOSS = 1e-4  # share of the loss of guessing at which the context's figure ends


@dataclass(frozen=True)
class CoefficientRule:
    """Coefficients of a run in, the temperatures of its batch out; and what coefficients are chosen from.

    Args:
        features: names in :data:`~rlkd_env.instances.features.FEATURES`, each with a coefficient; a feature enters
            as its position between its bounds, from -1 to 1.
        low: least temperature, in units of the batch's mean deviation of the teacher's logits.
        high: greatest temperature, likewise; the logarithm approaches both softly.

    Raises:
        UsageError: if a feature is unknown or repeated, or the bounds are out of order or not positive.

    Example:
        >>> rule = CoefficientRule(features=("student_performance",))
        >>> teacher_logits = torch.tensor([[6.0, 0.0], [0.0, 2.0]])  # deviations 3 and 1, 2 in the mean
        >>> outputs = InstanceOutputs(torch.zeros(2, 2), teacher_logits, torch.tensor([0, 1]))
        >>> rule.temperatures(torch.tensor([[0.0, 1.0]]), outputs)  # the student is torn in both
        tensor([2., 2.])
    """

    features: tuple[str, ...] = COEFFICIENT_FEATURES
    low: float = 0.125
    high: float = 8.0
    state: InstanceState = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UsageError(
                f"a rule's temperatures must go from a positive to a greater one, not {self.low:g} to {self.high:g}"
            )
        object.__setattr__(self, "state", InstanceState(self.features))

    @property
    def num_coefficients(self) -> int:
        """Number of coefficients n: that of the constant, then one a feature."""
        return 1 + len(self.features)

    @property
    def context_names(self) -> tuple[str, ...]:
        """What the numbers of a context are."""
        return ("progress", "batch_loss", *self.features)

    def context(self, outputs: InstanceOutputs, inputs: Tensor | None = None) -> Tensor:
        """Return what a policy knows of every run: ``(K, d)`` values in ``[-1, 1]``.

        They are the run's progress, the logarithm of the student's mean cross-entropy in the batch (1 is that of
        guessing, 0 a hundredth of it), and the batch means of the features; ``inputs`` are those, if known already.
        """
        loss = outputs.by_run(outputs.student_cross_entropy).mean(dim=1).float() / math.log(outputs.num_classes)
        loss = 1.0 + loss.nan_to_num(nan=1.0).clamp(_LEAST_LOSS, 1.0).log10() / 2.0
        progress = torch.full_like(loss, 2.0 * outputs.progress - 1.0)
        means = outputs.by_run(self.inputs(outputs) if inputs is None else inputs).mean(dim=1)
        return torch.cat([torch.stack([progress, loss], dim=1), means], dim=1).clamp(-1.0, 1.0)

    def temperatures(self, coefficients: Tensor, outputs: InstanceOutputs, inputs: Tensor | None = None) -> Tensor:
        """Return the temperatures ``(N,)`` of K runs for coefficients ``(K, n)``; ``inputs`` as in :meth:`context`."""
        spread = outputs.by_run(outputs.teacher_logits.float().std(dim=-1, correction=0))
        by_run = outputs.by_run(self.inputs(outputs) if inputs is None else inputs)
        weighted = coefficients[:, :1] + torch.einsum("kbf,kf->kb", by_run, coefficients[:, 1:])
        return (spread.mean(dim=1, keepdim=True) * self._squash(weighted).exp()).flatten()

    def inputs(self, outputs: InstanceOutputs) -> Tensor:
        """Return the features ``(N, n - 1)``, from -1 to 1."""
        values = self.state(outputs)
        return 2.0 * (values - self.state.low) / (self.state.high - self.state.low) - 1.0

    def _squash(self, values: Tensor) -> Tensor:
        """Bring logarithms softly between the bounds; 0 becomes their middle, and small values add to it."""
        low, high = math.log(self.low), math.log(self.high)
        half = (high - low) / 2.0
        return (low + high) / 2.0 + half * torch.tanh(values / half)
