"""Rules by name.

To add one, write a subclass of ``Rule``, whose arguments are its options, and a line in ``RULES``. Arguments without a
default come from the run (:class:`RuleSetting`) unless they are given.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.temperature import TemperatureRange, parse_bound
from rlkd_env.utils.registry import Registry, subclass_of

if TYPE_CHECKING:
    from agents.rules.base import Rule

RULES: Registry[type[Rule]] = Registry(
    "rule",
    {
        "fixed": "agents.rules.simple:FixedTemperature",
        "anneal": "agents.rules.schedules:Anneal",
        "linear": "agents.rules.schedules:LinearSchedule",
        "cosine": "agents.rules.schedules:CosineSchedule",
        "dts": "agents.rules.schedules:DTS",
        "random": "agents.rules.simple:RandomTemperature",
        "public_agent": "agents.rules.simple:PublicAgent",
        "entropy": "agents.rules.simple:EntropyRule",
        "difficulty": "agents.rules.simple:DifficultyRule",
        "lskd": "agents.rules.published:LSKD",
        "normkd": "agents.rules.published:NormKD",
        "ttm": "agents.rules.published:TTM",
        "wttm": "agents.rules.published:WTTM",
        "dtkd": "agents.rules.published:DTKD",
        "ctkd": "agents.rules.published:CTKD",
    },
    subclass_of("agents.rules.base:Rule"),
)


@dataclass(frozen=True)
class RuleSetting:
    """What rules take from the run that they are for; ``teacher_deviation`` is the unit of temperatures in s.

    Schedules go from the ``maximum`` of the temperature range to its ``minimum``.
    """

    temperature_range: TemperatureRange = TemperatureRange(1.0, 10.0)  # noqa: RUF009 (frozen)
    fixed_temperature: float = 4.0
    teacher_deviation: float = 1.0
    num_classes: int | None = None
    seed: int = 0

    def defaults(self) -> dict[str, Any]:
        """Return what there is for arguments without a default, by their names."""
        low, high = self.temperature_range.minimum, self.temperature_range.maximum
        return {"temperature": self.fixed_temperature, "low": low, "high": high, "first": high, "last": low}


def create_rule(
    rule: str | type[Rule], options: Mapping[str, Any] | None = None, setting: RuleSetting | None = None
) -> Rule:
    """Create a rule.

    Args:
        rule: a name in :data:`RULES`, ``package.module:name``, or a subclass of ``Rule``.
        options: arguments of that rule; temperatures may be given as
            :func:`~rlkd_env.instances.temperature.parse_bound` takes them.
        setting: what the rule takes from its run.

    Raises:
        UsageError: if the rule or one of its options is unknown, an option is missing, or one is out of its range.
    """
    setting, name = setting or RuleSetting(), RULES.name_of(rule)
    kind = RULES[name]
    parameters = inspect.signature(kind).parameters
    required = [key for key, known in parameters.items() if known.default is inspect.Parameter.empty]
    defaults = setting.defaults()
    arguments = {key: getattr(setting, key) for key in kind.from_run if key in parameters}
    arguments |= {key: defaults[key] for key in required if key in defaults}
    for option, value in (options or {}).items():
        if option not in parameters or option in kind.from_run:
            valid = [key for key in parameters if key not in kind.from_run]
            raise unknown_name(f"option of rule {name!r}", option, valid)
        is_temperature = option in kind.temperature_options
        arguments[option] = parse_bound(value, setting.teacher_deviation) if is_temperature else value
    missing = [key for key in required if key not in arguments]
    if missing:
        raise UsageError(f"rule {name!r} needs the option {missing[0]!r}")
    return recreate_rule({"rule": name, "arguments": arguments})


def recreate_rule(description: Mapping[str, Any]) -> Rule:
    """Create a rule again from its ``description``: ``{"rule": name, "arguments": {...}}``.

    Raises:
        UsageError: if the rule is unknown, or an argument is out of its range.
        KeyError, TypeError: if something is missing or unknown.
    """
    name, arguments = description["rule"], dict(description["arguments"])
    kind = RULES[name]
    try:
        rule = kind(**arguments)
    except UsageError as error:
        raise UsageError(f"rule {name!r}: {error}") from None
    rule.description = {"rule": name, "arguments": rule.arguments(arguments)}
    return rule


def check_function(rule: Rule) -> Rule:
    """Return a rule that an agent can act around: one whose temperatures follow from the batch alone.

    Raises:
        UsageError: if they do not; the message names the rules whose temperatures do.
    """
    if rule.is_function:
        return rule
    name = type(rule).__name__ if rule.description is None else rule.description["rule"]
    valid = ", ".join(sorted(other for other, kind in RULES.items() if kind.is_function))
    raise UsageError(
        f"no agent can act around the rule {name!r}, whose temperatures are learned along or drawn at random. "
        f"Valid: {valid}"
    )
