"""How numbers are written in sentences and tables."""

from __future__ import annotations


def capitalized(word: str) -> str:
    """Write a word as it begins a title, such as ``Accuracy``; what is in capitals stays."""
    return word[:1].upper() + word[1:]


def number(value: float) -> str:
    """Write such as ``−0.05``."""
    return f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    """Write a difference with its sign, such as ``+0.31``."""
    return f"{value:+.2f}".replace("-", "−")


def percent(share: float) -> str:
    """Write a share such as ``52 %``."""
    return f"{100.0 * share:.0f} %"
