"""What every KD method has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rlkd_env.outputs import InstanceOutputs
from rlkd_env.temperature import Temperature


class Method(nn.Module, ABC):
    """A distillation loss per instance, in named parts.

    Parameters of a method (adapters, embeddings) are trained by the run's optimiser together with the student.

    Args:
        task_weight: weight of the task's own loss (cross-entropy).
    """

    def __init__(self, task_weight: float) -> None:
        super().__init__()
        self.task_weight = task_weight

    @abstractmethod
    def distillation_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the weighted distillation terms by name, each ``(N,)``."""

    def forward(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return all weighted terms by name, each ``(N,)``; their sum is the instance's loss."""
        return {"task": self.task_weight * outputs.task_loss, **self.distillation_losses(outputs, temperature)}
