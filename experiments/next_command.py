"""The command that comes next, which every command prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from experiments.config import DistillConfig
from experiments.config.common import without_bookkeeping
from experiments.config.presets import preset_names, read_layers

_CHOICES = ("agent", "policy", "rule")
"""Options of which one at most is given; the others are then None, which need not be said."""


def tell_next(*words: str) -> None:
    """Print the next command, complete, as a shell takes it."""
    print(f"next: {shlex.join(words)}")


def distill_words(chosen: Mapping[str, Any], preset: str | None = None, **added: str) -> list[str]:
    """Return the words of the ``rlkd distill`` that has these options, as few as there can be.

    Args:
        chosen: options by their names in Python, such as those of another command; what is not among them is left as
            it is by default.
        preset: a preset of any command; it counts if ``rlkd distill`` has one of this name.
        added: options that are given in any case, after the others.
    """
    preset = preset if preset in preset_names("distill") else None
    own = without_bookkeeping(chosen)
    below = read_layers(preset, None, "distill", DistillConfig.option_names(), own.get("dataset"))
    usual = without_bookkeeping(DistillConfig().replaced(below).as_keywords())
    words = ["rlkd", "distill", *(["--preset", preset] if preset else [])]
    for name, value in own.items():
        is_implied = name in added or (name in _CHOICES and value is None)
        if name in usual and value != usual[name] and not is_implied:
            words += _option(name, value)
    return words + [word for name, value in added.items() for word in _option(name, value)]


def _option(name: str, value: Any) -> list[str]:
    """Return an option as it is given on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, dict):
        return [f"--{flag}", *(str(part) for pair in value.items() for part in pair)]
    return [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
