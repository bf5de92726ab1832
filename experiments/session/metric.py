"""What a run's networks are judged by, as its summary tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ACCURACY = "accuracy"
"""Of classifiers; detectors have AP. All figures that files call accuracy are of the run's metric."""


def metric_of(told: Mapping[str, Any] | None) -> str:
    """Return the metric that a summary, or the statistics of a task, tells; accuracy where none is told."""
    return str((told or {}).get("metric", ACCURACY))
