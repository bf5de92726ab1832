"""Temperatures of the instances in a batch, their range, and the map from agents' actions to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from torch import Tensor

from rlkd_env.registry import UsageError, unknown_name

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)
ActionScale = Literal["log", "linear"]


@dataclass(frozen=True)
class Temperature:
    """Softmax temperatures of N instances.

    Attributes:
        teacher: ``(N,)``, divides the teacher's logits.
        student: ``(N,)``, divides the student's logits.
        factor: ``(N,)``, multiplies the temperature-scaled loss in place of student · teacher; None leaves it that.
    """

    teacher: Tensor
    student: Tensor
    factor: Tensor | None = None

    @classmethod
    def shared(cls, temperature: Tensor) -> Temperature:
        """Use the same ``(N,)`` temperatures for teacher and student, as the paper does."""
        return cls(teacher=temperature, student=temperature)

    def scale(self, loss: Tensor) -> Tensor:
        """Multiply a loss ``(N,)`` by the factor, or by T_student · T_teacher where there is none."""
        return self.student * self.teacher * loss if self.factor is None else self.factor * loss

    def detach(self) -> Temperature:
        """Return the same values without gradient."""
        factor = None if self.factor is None else self.factor.detach()
        return Temperature(self.teacher.detach(), self.student.detach(), factor)


@dataclass(frozen=True)
class TemperatureRange:
    """The temperatures that an agent may choose, ``0 < minimum <= maximum``, both finite.

    Raises:
        UsageError: if the bounds are out of order, not positive or not finite.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not 0 < self.minimum < math.inf:
            raise UsageError(f"the smallest temperature must be positive and finite, not {self.minimum:g}")
        if not self.minimum <= self.maximum < math.inf:
            raise UsageError(
                f"the temperature range {self.minimum:g} to {self.maximum:g} is empty: minimum must not exceed maximum"
            )


def parse_bound(bound: str | float, teacher_deviation: float) -> float:
    """Read one end of a temperature range.

    Args:
        bound: an absolute temperature (``4``), or with the suffix ``s`` a multiple of the teacher's logit
            deviation (``"0.125s"``).
        teacher_deviation: mean over instances of the standard deviation of the teacher's logits.

    Raises:
        UsageError: if the text is not of that form.
    """
    text = str(bound).strip().lower()
    in_deviations = text.endswith("s")
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        raise UsageError(
            f"{bound!r} is no temperature: give a number such as 4, or 0.125s in units of the teacher's logit deviation"
        ) from None
    return value * teacher_deviation if in_deviations else value


def resolve_range(minimum: str | float, maximum: str | float, teacher_deviation: float) -> TemperatureRange:
    """Turn the two ends, each as :func:`parse_bound` takes it, into absolute temperatures."""
    return TemperatureRange(parse_bound(minimum, teacher_deviation), parse_bound(maximum, teacher_deviation))


@dataclass(frozen=True)
class ActionMap:
    """The bijection between actions in ``[-1, 1]``, which agents see, and temperatures in a range.

    Args:
        range: the temperatures at -1 and 1.
        scale: ``"log"`` makes equal steps of the action equal *ratios* of the temperature, ``"linear"`` equal
            differences.
    """

    range: TemperatureRange
    scale: ActionScale = "log"

    def __post_init__(self) -> None:
        if self.scale not in ("log", "linear"):
            raise unknown_name("temperature scale", self.scale, ("log", "linear"))

    def to_temperature(self, action: ArrayOrTensor) -> ArrayOrTensor:
        """Map actions of any shape to temperatures; actions outside ``[-1, 1]`` are clipped."""
        share = (action.clip(-1.0, 1.0) + 1.0) / 2.0
        low, high = self.range.minimum, self.range.maximum
        if self.scale == "log":
            return low * (high / low) ** share
        return low + (high - low) * share

    def to_action(self, temperature: float) -> float:
        """Return the action that gives this temperature; temperatures outside the range are clipped."""
        low, high = self.range.minimum, self.range.maximum
        if low == high:
            return 0.0
        clipped = min(max(temperature, low), high)
        share = (
            math.log(clipped / low) / math.log(high / low) if self.scale == "log" else (clipped - low) / (high - low)
        )
        return 2.0 * share - 1.0
