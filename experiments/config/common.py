"""What the options of all commands have in common."""

from __future__ import annotations

import json
from typing import Any

_NOT_SETTINGS = (
    "out",
    "overwrite",
    "resume",
    "config",
    "preset",
    "checkpoint_seconds",
    "progress",
    "download",
    "workers",
)
"""Options that do not change what a run computes; they are neither stored nor compared on --resume."""


def without_bookkeeping(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that determine results; the others are where things go and how they are shown."""
    plain = json.loads(json.dumps(options))
    return {name: value for name, value in plain.items() if name not in _NOT_SETTINGS}


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Write options as command-line arguments, so that one parser checks both."""
    arguments = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, dict):
            arguments += [flag, *(str(part) for pair in value.items() for part in pair)]
        elif isinstance(value, list | tuple):
            arguments += [flag, *map(str, value)]
        else:
            arguments += [flag, str(value)]
    return arguments
