"""No distillation: the student learns from the labels alone. Every KD method is compared with this control."""

from __future__ import annotations

from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method


class CrossEntropy(Method):
    """The cross-entropy on its own; temperatures have no effect."""

    tasks: tuple[TaskName, ...] = ("classification", "detection")
    uses_temperature = False

    def __init__(self) -> None:
        super().__init__(task_weight=1.0)

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:  # noqa: ARG002
        """Return no term."""
        return {}
