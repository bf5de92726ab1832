"""Saved policies by the kind that they tell, and the one that comes with the package."""

from __future__ import annotations

from pathlib import Path

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.files import policy_folder, read_description
from agents.learned.temperature_policy import TemperaturePolicy
from rlkd_env.utils.registry import Registry

PRETRAINED = "pretrained"
_PRETRAINED_FOLDER = Path(__file__).parent / "pretrained"

KINDS: Registry[type[TemperaturePolicy | CoefficientPolicy]] = Registry(
    "kind of policy", {kind.kind: kind for kind in (TemperaturePolicy, CoefficientPolicy)}
)


def load_policy(path: Path | str) -> TemperaturePolicy | CoefficientPolicy:
    """Read a saved policy of any kind; nothing is unpickled.

    Args:
        path: its folder, one of its two files, or the word ``pretrained`` for the policy that comes with the package.

    Raises:
        UsageError: if a file is missing, damaged, of another format, or does not belong to the other.
    """
    folder = _PRETRAINED_FOLDER if str(path) == PRETRAINED else policy_folder(path)
    return KINDS[str(read_description(folder)["kind"])].load(folder)
