"""Published rules that read both networks' logits, and one that is learned against the student by gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from agents.rules.base import Rule, check_choice, check_count, check_positive, check_temperature, number_type, repeat
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature

_SMALLEST_VARIANCE = 1e-14
"""Smallest variance of logits, so that equal logits cause neither a division by zero nor a gradient that is NaN."""
_SMALLEST_SHARE = 1e-4
"""Smallest share of a network's largest logit in the sum of both networks', for DTKD."""


class _LogitRule(Rule):
    """A rule of the logits; with ``gradient`` the student's gradient also goes through its temperature."""

    def __init__(self, gradient: bool) -> None:
        super().__init__()
        if not isinstance(gradient, bool):
            raise UsageError(f"a rule's gradient must be True or False, not {gradient!r}")
        self.has_gradient = gradient

    def student_logits(self, outputs: InstanceOutputs) -> Tensor:
        """Return ``(N, C)``, with gradient where it is wanted, in float32 or finer."""
        logits = outputs.student_logits.to(number_type(outputs))
        return logits if self.has_gradient else logits.detach()

    def teacher_logits(self, outputs: InstanceOutputs) -> Tensor:
        """Return ``(N, C)`` in the student's number format."""
        return outputs.teacher_logits.to(number_type(outputs))


class LSKD(_LogitRule):
    """T = τ · std(z) for each network, with the loss factor τ² (Sun et al., arXiv 2403.01427).

    This is z-score standardisation at temperature τ, because a softmax does not depend on the mean; with ``gradient``
    the student's gradient is that of standardised logits, too. The paper's KL weight is 9: ``--method-options
    kd_weight 9``.

    Args:
        tau: the base temperature τ.
        correction: 0 for the standard deviation of the paper, 1 for that of the authors' code (over C - 1).
        gradient: whether the student's gradient goes through its standard deviation.

    Raises:
        UsageError: if an option is out of its range.
    """

    def __init__(self, tau: float = 2.0, correction: int = 0, gradient: bool = True) -> None:
        super().__init__(gradient)
        self.tau = check_positive("tau", tau)
        self.correction = check_count("correction", correction, smallest=0)
        if self.correction > 1:
            raise UsageError(f"a rule's correction must be 0 or 1, not {correction}")

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures."""
        student = self.tau * _deviation(self.student_logits(outputs), self.correction)
        teacher = self.tau * _deviation(self.teacher_logits(outputs), self.correction)
        return Temperature(teacher, student, self.factor(teacher))

    def factor(self, teacher_temperature: Tensor) -> Tensor:
        """Return the loss factor ``(N,)``."""
        return torch.full_like(teacher_temperature, self.tau**2)


class NormKD(LSKD):
    """T = τ · std(z) for each network, weighted by T_teacher² (Chi et al., arXiv 2308.00520). Arguments as LSKD's."""

    def factor(self, teacher_temperature: Tensor) -> Tensor:
        """Return the loss factor ``(N,)``."""
        return teacher_temperature.square()


class DTKD(_LogitRule):
    """T_s = 2τ · m_s / (m_s + m_t) and T_t = 2τ · m_t / (m_s + m_t), where m is the largest logit (arXiv 2404.12711).

    If a largest logit is not positive, or less than 1e-4 of the sum of both, both temperatures are τ, as in plain KD.

    Args:
        tau: the reference temperature τ.
        gradient: whether the student's gradient goes through the temperatures.
    """

    def __init__(self, tau: float = 4.0, gradient: bool = True) -> None:
        super().__init__(gradient)
        self.tau = check_positive("tau", tau)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures."""
        student, teacher = self.student_logits(outputs).amax(dim=-1), self.teacher_logits(outputs).amax(dim=-1)
        total = student + teacher
        usable = torch.minimum(student, teacher) > _SMALLEST_SHARE * total.abs()
        divisor = total.where(usable, torch.ones_like(total))
        of_teacher, of_student = (2.0 * self.tau * (largest / divisor) for largest in (teacher, student))
        reference = torch.full_like(total, self.tau)
        return Temperature(of_teacher.where(usable, reference), of_student.where(usable, reference))


class TTM(Rule):
    """Only the teacher has a temperature: its distribution is p_t^γ, normalised, with γ = 1/T (arXiv 2402.11148).

    Args:
        temperature: the teacher's temperature, 1/γ; 4 by default.
        gamma: γ, instead of the temperature.

    Raises:
        UsageError: if a number is not positive, or both are given.
    """

    temperature_options = ("temperature",)

    def __init__(self, temperature: float | None = None, gamma: float | None = None) -> None:
        super().__init__()
        if temperature is not None and gamma is not None:
            raise UsageError("temperature and gamma exclude each other: one is 1 over the other")
        if gamma is not None:
            temperature = 1.0 / check_positive("gamma", gamma)
        self.temperature = 4.0 if temperature is None else check_temperature(temperature)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures and the instances' weights."""
        return Temperature(repeat(self.temperature, outputs), repeat(1.0, outputs), self.weight(outputs))

    def weight(self, outputs: InstanceOutputs) -> Tensor:
        """Return the loss factor ``(N,)``."""
        return repeat(1.0, outputs)


class WTTM(TTM):
    """TTM with instances weighted by Σ_k p_t,k^γ (arXiv 2402.11148). Arguments as TTM's."""

    def weight(self, outputs: InstanceOutputs) -> Tensor:
        """Return the loss factor ``(N,)``, which for γ < 1 is large if the teacher is uncertain."""
        return (outputs.teacher_log_probabilities / self.temperature).exp().sum(dim=-1)


class CTKD(Rule):
    """T = low + (high - low) · sigmoid(θ), θ learned to make the student's loss large (Li et al., arXiv 2211.16231).

    The student's optimiser trains θ with its gradient multiplied by λ, which falls to -1 in the first epochs: the
    student descends the loss, θ ascends it. The global θ is one number. The instance's θ is the output of a two-layer
    network that reads both networks' logits; no gradient flows back into the logits, so the student does not learn to
    influence its temperature. In both cases all instances have the same T at the start.

    Args:
        scope: ``"global"`` or ``"instance"``.
        low: lowest temperature.
        high: highest temperature.
        start: θ at the beginning; 1 gives T = 15.6.
        curriculum_epochs: first epoch in which λ is -1, counted from 1; with 0 it is -1 from the start.
        hidden: width of the instance's network.
        num_classes: C, for the instance's network.

    Raises:
        UsageError: if an option is out of its range.
    """

    has_gradient = True
    is_function = False
    temperature_options = ("low", "high")
    from_run = ("num_classes",)

    def __init__(
        self,
        scope: str = "global",
        low: float = 1.0,
        high: float = 21.0,
        start: float = 1.0,
        curriculum_epochs: int = 10,
        hidden: int = 256,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.scope = check_choice("scope", scope, ("global", "instance"))
        self.low, self.span = check_temperature(low), check_temperature(high) - low
        if not self.span > 0:
            raise UsageError(f"the temperature range {low:g} to {high:g} is empty: low must be below high")
        if isinstance(start, bool) or not isinstance(start, int | float) or not math.isfinite(start):
            raise UsageError(f"a rule's start must be a number, not {start!r}")
        self.curriculum_epochs = check_count("curriculum_epochs", curriculum_epochs, smallest=0)
        hidden = check_count("hidden", hidden)
        if self.scope == "global":
            self.theta = nn.Parameter(torch.tensor(float(start)))
            return
        if num_classes is None:
            raise UsageError("the rule ctkd per instance needs the number of classes")
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, start)
        self.network = nn.Sequential(nn.Linear(2 * num_classes, hidden), nn.ReLU(), last)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures, whose gradient by the parameters is multiplied by λ."""
        if self.scope == "global":
            theta = self.theta.expand(outputs.labels.shape)
        else:
            logits = torch.cat([outputs.teacher_logits, outputs.student_logits.detach()], dim=-1)
            theta = self.network(logits.to(next(self.parameters()).dtype)).squeeze(-1)
        scaled: Tensor = _ScaledGradient.apply(
            theta.to(number_type(outputs)), self.gradient_factor(float(outputs.epoch))
        )
        return Temperature.shared(self.low + self.span * torch.sigmoid(scaled))

    def gradient_factor(self, epoch: float) -> float:
        """Return λ in the epoch of the next update; ``epoch`` is the number of epochs that are over.

        λ(e) = -½ (1 - cos(π e / 10)) in the e-th epoch, counted from 1 as the authors' code does, and -1 from e = 10.
        """
        if epoch + 1.0 >= self.curriculum_epochs:
            return -1.0
        return -(1.0 - math.cos(math.pi * (math.floor(epoch) + 1) / self.curriculum_epochs)) / 2.0


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradient, None


def _deviation(logits: Tensor, correction: int) -> Tensor:
    """Standard deviation of logits ``(N, C)``, ``(N,)``; at least 1e-7."""
    return logits.var(dim=-1, correction=correction).clamp(min=_SMALLEST_VARIANCE).sqrt()
