"""What is distilled: how networks are forwarded, trained and evaluated. A new task is a file and a line here."""

from __future__ import annotations

from rlkd_env.data.splits import TaskName
from rlkd_env.models.engine import Engine
from rlkd_env.tasks.base import Evaluation, Task
from rlkd_env.tasks.classification import Classification


def create_task(name: TaskName, engine: Engine | None = None, proposals: int = 64) -> Task:
    """Return the task that a data source names.

    Args:
        name: the source's ``task``.
        engine: how networks are computed; None computes plainly, on a CPU.
        proposals: of every image that are distilled in detection.

    Raises:
        UsageError: if there is not a proposal, or the engine compiles what cannot be compiled.
    """
    if name == "classification":
        return Classification(engine)
    from rlkd_env.tasks.detection.task import (
        Detection,  # torchvision's detectors take as long to import as PyTorch itself
    )

    return Detection(engine, proposals)


__all__ = ["Classification", "Evaluation", "Task", "create_task"]
