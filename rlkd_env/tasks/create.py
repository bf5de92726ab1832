"""Tasks by the name that a data source gives."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlkd_env.errors import UsageError, missing_package

if TYPE_CHECKING:
    from rlkd_env.data.splits import TaskName
    from rlkd_env.models.engine import Engine
    from rlkd_env.tasks.base import Task


def create_task(
    name: TaskName,
    engine: Engine | None = None,
    proposals: int = 64,
    auxiliary_weight: float = 0.0,
    label_smoothing: float = 0.0,
    reads_two_heads: bool = False,
) -> Task:
    """Return the task that a data source names.

    Raises:
        UsageError: if there are no proposals, if detectors are asked for what only classifiers have, or if the package
            that measures detections is missing.
    """
    if name == "classification":
        from rlkd_env.tasks.classification import Classification

        return Classification(engine, auxiliary_weight, label_smoothing, reads_two_heads)
    if auxiliary_weight or label_smoothing:
        raise UsageError("auxiliary logits and label smoothing are for classification: leave them out for detectors")
    if find_spec("pycocotools") is None:  # told before anything is trained
        raise missing_package("detection", "pycocotools")
    from rlkd_env.tasks.detection.task import Detection  # torchvision's detectors take as long to import as PyTorch

    return Detection(engine, proposals)
