"""What torchrun tells the processes that it has started, without PyTorch."""

from __future__ import annotations

import os


def started_processes() -> int:
    """Return how many processes torchrun has started for this program; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this is the one process, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"
