"""Formatting of numbers in sentences and tables."""

from __future__ import annotations


def capitalized(word: str) -> str:
    """Capitalise the first letter of a title and leave the others, such as ``Accuracy`` or ``AP50``."""
    return word[:1].upper() + word[1:]


def number(value: float) -> str:
    """Format a number, such as ``−0.05``."""
    return f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    """Format a difference with its sign, such as ``+0.31``."""
    return f"{value:+.2f}".replace("-", "−")


def percent(share: float) -> str:
    """Format a share as a percentage, such as ``52 %``."""
    return f"{100.0 * share:.0f} %"
