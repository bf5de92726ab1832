"""The error that a user can mend, and how an unknown name is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A request that cannot be met; its message is one line that tells the user what to change."""


class AgentDiverged(UsageError):  # noqa: N818 (not an error in the program)
    """The networks of an agent that learns hold no usable numbers any more."""


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> UsageError:
    """Build the error for an unknown name: what was given, the closest match and every valid name."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}")


def missing_package(what: str, *packages: str) -> UsageError:
    """Build the error for optional packages, by their names on the package index, that are not installed."""
    return UsageError(f"{what} needs {' and '.join(packages)}: pip install {' '.join(packages)}")
