"""Lines for the user about what is not wrong, but worth knowing."""

from __future__ import annotations

import sys

from rlkd_env.utils.processes import is_first_process


def tell(text: str) -> None:
    """Print a line on standard error, once where several processes share a run."""
    if is_first_process():
        print(f"rlkd: {text}", file=sys.stderr)  # noqa: T201
