"""From agents' actions to temperatures: anywhere in a range, or around those of a rule or a policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
from torch import Tensor

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Policy, Temperature, TemperatureRange
from rlkd_env.utils.choices import AGENT_WIDTH, ActionScale, AroundLevel

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)


@dataclass(frozen=True)
class ActionMap:
    """The bijection between actions in ``[-1, 1]``, which agents see, and temperatures in a range.

    The scale ``"log"`` makes equal steps of the action equal *ratios* of the temperature, ``"linear"`` differences.
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

    def temperature(self, action: Tensor, outputs: InstanceOutputs) -> Temperature:  # noqa: ARG002
        """Return N instances' temperatures for actions ``(N, 1)``, or ``(N, 2)`` for teacher and student apart."""
        return Temperature.of_columns(self.to_temperature(action))


@dataclass(frozen=True)
class ResidualMap:
    """Temperatures around those of a rule: T = T_rule · m with m = exp(width · action), for actions in ``[-1, 1]``.

    An action of one number multiplies both temperatures, one of two numbers the teacher's and the student's apart. A
    factor of the rule's own is multiplied as T_student · T_teacher is: LSKD with m is LSKD with the base temperature
    m · τ, its factor (m · τ)² included. The action 0 gives the rule's temperatures, bit for bit.

    By default the mean action of a run's batch is taken from all of them, so that what the agent does is to share the
    rule's temperatures out among the instances, and their level, the mean of log T, stays the rule's but for what the
    ends of width and range cut off. An agent that is rewarded for the next update cannot see what a level is worth at
    the end of the run.

    The range is one of the teacher's temperatures, as its unit is the deviation of the teacher's logits. So it bounds
    how far m takes the teacher's temperature, and the student's goes along, wherever a rule that reads the student's
    own logits has put it. Where the rule itself is outside of the range, m takes it no further out.

    Args:
        around: the rule, or a policy in its place, which must be a function of a batch's outputs alone.
        range: the range of the teacher's temperatures.
        width: logarithm of the largest m; without the mean's being taken away, the action 1 gives it.
        level: ``"keep"`` takes the mean away, ``"free"`` leaves it.

    Raises:
        UsageError: if the width is not positive and finite or the level is unknown.
    """

    around: Policy
    range: TemperatureRange
    width: float = AGENT_WIDTH
    level: AroundLevel = "keep"

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise UsageError(f"the width around a rule must be positive and finite, not {self.width:g}")
        if self.level not in get_args(AroundLevel):
            raise unknown_name("level", self.level, get_args(AroundLevel))

    @property
    def has_gradient(self) -> bool:
        """Whether the temperatures carry gradients, which are then part of the loss."""
        return bool(getattr(self.around, "has_gradient", False))

    def temperature(self, action: Tensor, outputs: InstanceOutputs) -> Temperature:
        """Return N instances' temperatures for actions ``(N, 1)``, or ``(N, 2)`` for teacher and student apart."""
        rule = self.around(outputs)
        teacher = rule.teacher.detach().unsqueeze(-1)
        lowest, highest = (self.range.minimum / teacher).clamp(max=1.0), (self.range.maximum / teacher).clamp(min=1.0)
        action = action.clip(-1.0, 1.0)
        if self.level == "keep":
            by_run = outputs.by_run(action)
            action = (by_run - by_run.mean(dim=1, keepdim=True)).flatten(0, 1).clip(-1.0, 1.0)
        multiplier = (self.width * action).exp().clamp(lowest, highest)
        of_teacher, of_student = multiplier[:, 0], multiplier[:, -1]
        if rule.is_shared and action.shape[-1] == 1:
            return Temperature.shared(rule.teacher * of_teacher)
        factor = None if rule.factor is None else rule.factor * of_teacher * of_student
        return Temperature(rule.teacher * of_teacher, rule.student * of_student, factor)
