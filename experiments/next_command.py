"""The command that comes next, which every command prints at its end."""

from __future__ import annotations

import shlex


def tell_next(*words: str) -> None:
    """Print the next command, complete, as a shell takes it."""
    print(f"next: {shlex.join(words)}")
