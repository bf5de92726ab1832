"""What the options of all commands have in common."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

_NOT_SETTINGS = (
    "out",
    "overwrite",
    "resume",
    "config",
    "preset",
    "checkpoint_seconds",
    "progress",
    "tensorboard",
    "download",
    "workers",
)
"""Options that do not change what a run computes; they are neither stored nor compared on --resume."""


@dataclass(frozen=True)
class CommandConfig:
    """Options of a command: every field of a subclass is a group of them, and no two have the same name.

    Attributes:
        presets: name of the command whose presets it takes.
    """

    presets: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Return all options by name."""
        return {name: value for group in asdict(self).values() for name, value in group.items()}

    def settings(self) -> dict[str, Any]:
        """Return the options that determine the results; what ``config.json`` holds."""
        return without_bookkeeping(self.as_dict())


def without_bookkeeping(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that determine results; the others are where things go and how they are shown."""
    plain = json.loads(json.dumps(options))
    return {name: value for name, value in plain.items() if name not in _NOT_SETTINGS}


def config_hash(settings: dict[str, Any]) -> str:
    """Return a short name of settings: the first 16 hexadecimal digits of their SHA-256, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Write options as command-line arguments, so that one parser checks both; options inside of options as JSON."""
    arguments = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, dict):
            arguments += [flag, *(_as_text(part) for pair in value.items() for part in pair)]
        elif isinstance(value, list | tuple):
            arguments += [flag, *map(str, value)]
        else:
            arguments += [flag, str(value)]
    return arguments


def _as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
