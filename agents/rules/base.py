"""What all rules have in common, and checks of their options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.policy import PolicyModule


class Rule(PolicyModule):
    """Maps the outputs of a batch to temperatures on the outputs' device, as a learned policy does.

    A rule that learns by gradient holds its parameters. A run trains them with the student's optimiser if the rule is
    the run's own (``run.create_policy``). Every rule refuses options out of their range with a ``UsageError``.

    Attributes:
        has_gradient: whether the temperatures carry gradients, to the student's logits or to the rule's parameters.
        is_function: whether the temperatures follow from the outputs alone, and not from anything learned or drawn.
        temperature_options: arguments that are temperatures, and so may be given in units of the teacher's logit
            standard deviation.
        from_run: arguments that are no options, as they always come from the run: ``seed`` and ``num_classes``.
        description: name and arguments of a rule that was created by name; what a file keeps of it.
    """

    has_gradient = False
    is_function = True
    temperature_options: tuple[str, ...] = ()
    from_run: tuple[str, ...] = ()
    description: dict[str, Any] | None = None

    def __init__(self) -> None:  # without the *args of a module, as arguments are the rule's options
        super().__init__()

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that make this rule again, whatever the defaults are then, from those it was given."""
        return dict(given)


def number_type(outputs: InstanceOutputs) -> torch.dtype:
    """Return the logits' number format, or float32 if that is wider."""
    return torch.promote_types(outputs.student_logits.dtype, torch.float32)


def repeat(value: float, outputs: InstanceOutputs) -> Tensor:
    """Return the same number for every instance, ``(N,)``."""
    return torch.full(outputs.labels.shape, value, dtype=number_type(outputs), device=outputs.labels.device)


def check_temperature(value: float) -> float:
    """Return a temperature that is positive and finite."""
    return check_positive("temperature", value)


def check_positive(name: str, value: float, zero: bool = False) -> float:
    """Return an option that is a positive and finite number; with ``zero`` it may be 0, too."""
    words = "not be negative and must be finite" if zero else "be positive and finite"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"a rule's {name} must be a number, not {value!r}")
    if not (0 < value < math.inf or (zero and value == 0)):
        raise UsageError(f"the {name} must {words}, not {value:g}")
    return float(value)


def check_count(name: str, value: int, smallest: int = 1) -> int:
    """Return an option that is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise UsageError(f"a rule's {name} must be a whole number of at least {smallest}, not {value!r}")
    return value


def check_choice(name: str, value: object, valid: Sequence[str]) -> str:
    """Return an option that is one of some words."""
    if value not in valid:
        raise unknown_name(f"value for {name}", value, valid)
    return str(value)
