"""Temperatures of the instances in a batch, their range, and the policies that choose them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.utils.options import split_temperature


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

    @classmethod
    def of_columns(cls, columns: Tensor) -> Temperature:
        """Read chosen temperatures: ``(N, 1)``, shared, or ``(N, 2)``, the teacher's before the student's.

        There is no factor of their own: the loss is scaled by T_student · T_teacher. So a rule's pair of temperatures
        is such a row, and its loss that of the row times the rule's factor over T_student · T_teacher.
        """
        if columns.shape[-1] == 1:
            return cls.shared(columns[:, 0])
        return cls(teacher=columns[:, 0], student=columns[:, 1])

    @property
    def is_shared(self) -> bool:
        """Whether one tensor holds the temperatures of teacher and student, and there is no factor of its own."""
        return self.teacher is self.student and self.factor is None

    def scale(self, loss: Tensor) -> Tensor:
        """Multiply a loss ``(N,)`` by the factor, or by T_student · T_teacher where there is none."""
        return self.student * self.teacher * loss if self.factor is None else self.factor * loss

    def times(self, multiple: float) -> Temperature:
        """Return so many times these temperatures, whose factor then grows with the square."""
        factor = None if self.factor is None else multiple**2 * self.factor
        return Temperature(multiple * self.teacher, multiple * self.student, factor)

    def detach(self) -> Temperature:
        """Return the same values without gradient."""
        if self.is_shared:
            return Temperature.shared(self.teacher.detach())
        factor = None if self.factor is None else self.factor.detach()
        return Temperature(self.teacher.detach(), self.student.detach(), factor)

    def rows(self, chosen: slice) -> Temperature:
        """Return the temperatures of some of the instances."""
        factor = None if self.factor is None else self.factor[chosen]
        return Temperature(self.teacher[chosen], self.student[chosen], factor)


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
    """Read an end of a range: a temperature (``4``), or with suffix ``s`` a multiple of the deviation (``0.125s``).

    Raises:
        UsageError: if the text is not of that form, or the number is not positive and finite.
    """
    value, in_deviations = split_temperature(bound)
    return value * teacher_deviation if in_deviations else value


def resolve_range(minimum: str | float, maximum: str | float, teacher_deviation: float) -> TemperatureRange:
    """Turn the two ends, each as :func:`parse_bound` takes it, into absolute temperatures."""
    return TemperatureRange(parse_bound(minimum, teacher_deviation), parse_bound(maximum, teacher_deviation))


Policy = Callable[[InstanceOutputs], Temperature]
"""Anything that chooses the temperatures of a batch on the device: a rule or a learned policy.

One whose temperatures carry gradients, to the student or to parameters of its own, has an attribute ``has_gradient``
that is true.
"""
