"""Policies by name or path: saved ones by the kind that they tell, the one of the package, and rules."""

from __future__ import annotations

from pathlib import Path

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.files import policy_folder, read_description
from agents.learned.temperature_policy import KINDS, TemperaturePolicy
from agents.rules.base import Rule
from agents.rules.create import RULES, check_function, create_rule

PRETRAINED = "pretrained"


def load_policy(path: Path | str) -> TemperaturePolicy | CoefficientPolicy | Rule:
    """Return a policy for any KD code: a saved one, the package's own, or a rule.

    Args:
        path: the folder of a saved policy or one of its two files, ``"pretrained"``, or the name of a rule in
            :data:`~agents.rules.create.RULES` whose temperatures follow from the batch alone, such as ``"anneal"``.

    Raises:
        UsageError: if a file is missing, damaged, of another format, or does not belong to the other, or the rule
            learns along or draws at random.
    """
    if str(path) in RULES:
        return check_function(create_rule(str(path)))
    folder = Path(__file__).parent / PRETRAINED if str(path) == PRETRAINED else policy_folder(path)
    return KINDS[str(read_description(folder)["kind"])].load(folder)
