"""Temperatures without reinforcement learning, behind the interface that learned policies have.

Batch outputs in, temperatures out. To add a rule, write a :class:`Rule` and register it here: its arguments are its
options, and those without a default come from the run (:class:`RuleSetting`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.rules.base import Rule
from agents.rules.published import CTKD, DTKD, LSKD, TTM, WTTM, NormKD
from agents.rules.simple import (
    CosineSchedule,
    DifficultyRule,
    EntropyRule,
    FixedTemperature,
    LinearSchedule,
    PublicAgent,
    RandomTemperature,
)
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.temperature import TemperatureRange, parse_bound
from rlkd_env.utils.registry import Registry

RULES: Registry[Callable[..., Rule]] = Registry("rule")
RULES.register("fixed")(FixedTemperature)
RULES.register("linear")(LinearSchedule)
RULES.register("cosine")(CosineSchedule)
RULES.register("random")(RandomTemperature)
RULES.register("public_agent")(PublicAgent)
RULES.register("entropy")(EntropyRule)
RULES.register("difficulty")(DifficultyRule)
RULES.register("lskd")(LSKD)
RULES.register("normkd")(NormKD)
RULES.register("ttm")(TTM)
RULES.register("wttm")(WTTM)
RULES.register("dtkd")(DTKD)
RULES.register("ctkd")(CTKD)

_TEMPERATURES = ("temperature", "first", "last", "low", "high", "maximum")
"""Options that are temperatures, and so may be given in units of the teacher's logit deviation."""
_FROM_THE_RUN = ("seed", "num_classes")
"""Arguments that are no options."""


@dataclass(frozen=True)
class RuleSetting:
    """What rules take from the run that they are for.

    Attributes:
        temperature_range: from ``low`` to ``high``; schedules go from its ``maximum`` to its ``minimum``.
        fixed_temperature: of the rule fixed.
        teacher_deviation: unit of temperatures with the suffix s.
        num_classes: C.
        seed: of random draws.
    """

    temperature_range: TemperatureRange = TemperatureRange(1.0, 10.0)  # noqa: RUF009 (frozen)
    fixed_temperature: float = 4.0
    teacher_deviation: float = 1.0
    num_classes: int | None = None
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Return what there is for arguments without a default, by their names."""
        low, high = self.temperature_range.minimum, self.temperature_range.maximum
        return {"temperature": self.fixed_temperature, "low": low, "high": high, "first": high, "last": low}


def create_rule(name: str, options: Mapping[str, Any] | None = None, setting: RuleSetting | None = None) -> Rule:
    """Create a rule by name.

    Args:
        name: a name in :data:`RULES`.
        options: arguments of that rule; temperatures may be given as
            :func:`~rlkd_env.instances.temperature.parse_bound` takes them.
        setting: of the run that it is for.

    Raises:
        UsageError: if the rule or one of its options is unknown, or an option is out of its range.
    """
    setting = setting or RuleSetting()
    parameters = inspect.signature(RULES[name]).parameters
    valid = [option for option in parameters if option not in _FROM_THE_RUN]
    arguments: dict[str, Any] = {"seed": setting.seed, "num_classes": setting.num_classes}
    arguments |= {key: value for key, value in setting.arguments().items() if _is_required(parameters.get(key))}
    for option, value in (options or {}).items():
        if option not in valid:
            raise unknown_name(f"option of rule {name!r}", option, valid)
        arguments[option] = parse_bound(value, setting.teacher_deviation) if option in _TEMPERATURES else value
    return recreate_rule({"rule": name, "arguments": {key: arguments[key] for key in arguments if key in parameters}})


def recreate_rule(description: Mapping[str, Any]) -> Rule:
    """Create a rule again from its ``description``: ``{"rule": name, "arguments": {...}}``.

    Raises:
        UsageError: if the rule is unknown, or an argument is out of its range.
        KeyError: if something is missing.
        TypeError: if an argument is unknown or missing.
    """
    name, arguments = description["rule"], dict(description["arguments"])
    kind = RULES[name]
    try:
        rule = kind(**arguments)
    except UsageError as error:
        raise UsageError(f"rule {name!r}: {error}") from None
    rule.description = {"rule": name, "arguments": arguments}
    return rule


def check_function(rule: Rule) -> Rule:
    """Return a rule whose temperatures follow from the batch alone, which an agent can act around.

    Raises:
        UsageError: if they do not; names the rules whose do.
    """
    if rule.is_function:
        return rule
    name = type(rule).__name__ if rule.description is None else rule.description["rule"]
    valid = ", ".join(sorted(other for other, kind in RULES.items() if getattr(kind, "is_function", False)))
    raise UsageError(
        f"no agent can act around the rule {name!r}, whose temperatures are learned along or drawn at random. "
        f"Valid: {valid}"
    )


def _is_required(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is inspect.Parameter.empty


__all__ = [
    "RULES",
    "FixedTemperature",
    "Rule",
    "RuleSetting",
    "check_function",
    "create_rule",
    "recreate_rule",
]
