"""What every KD method has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlkd_env.data.boxes import Regions
from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.equal_gradients import mean_norm, with_equal_gradients
from rlkd_env.models.taps.features import Features, FeatureShapes, feature_shapes


@dataclass(frozen=True)
class Pair:
    """What a method that compares features must know of the two networks and of the data.

    Attributes:
        student: sizes of the student's features.
        teacher: sizes of the teacher's.
        teacher_network: frozen and in evaluation mode.
        labels: ``(n,)`` classes of all training images.
        object_classes: number of classes of the objects that detectors find, without the background; None where
            networks classify whole images.
    """

    student: FeatureShapes
    teacher: FeatureShapes
    teacher_network: nn.Module
    labels: Tensor
    object_classes: int | None = None

    @classmethod
    def of(
        cls,
        student: nn.Module,
        teacher: nn.Module,
        images: Tensor,
        labels: Tensor,
        object_classes: int | None = None,
    ) -> Pair:
        """Describe two networks by what they make of some images ``(N, channels, height, width)``.

        Raises:
            UsageError: if a network has no taps.
        """
        student_shapes, teacher_shapes = feature_shapes(student, images), feature_shapes(teacher, images)
        return cls(student_shapes, teacher_shapes, teacher, labels, object_classes)


class Method(nn.Module, ABC):
    """A distillation loss per instance, in named parts.

    Parameters of a method (adapters, embeddings) are trained by the run's optimiser together with the student, but for
    those that :meth:`create_optimizer` names.

    Args:
        task_weight: weight of the task's own loss (cross-entropy).

    Attributes:
        uses_temperature: whether a loss depends on the temperatures.
        uses_features: whether the outputs must hold images and features.
        tasks: that the method is for.
        is_stochastic: whether a loss draws from torch's global generator; the run then seeds it.
        gather: from values ``(n, ...)`` of a process' share of the batch to those of the whole batch ``(N, ...)``, for
            a memory that must be the same in all processes that share a run.
        equal_gradients: whether each instance's gradient of the terms that depend on the temperatures, by the student's
            logits, is scaled to the batch's mean norm; the terms' values stay.
        num_runs: number of runs whose batches of equal size, one after the other, make up the outputs.
    """

    uses_temperature = True
    uses_features = False
    tasks: tuple[TaskName, ...] = ("classification",)
    is_stochastic = False

    def __init__(self, task_weight: float) -> None:
        super().__init__()
        self.task_weight = task_weight
        self.gather: Callable[[Tensor], Tensor] = _itself
        self.equal_gradients = False
        self.num_runs = 1

    @abstractmethod
    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the weighted terms that depend on the temperatures, by name, each ``(N,)``; a function of logits."""

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the weighted terms that do not depend on temperatures, by name, each ``(N,)``."""
        return {}

    def forward(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return all weighted terms by name, each ``(N,)``; their sum is the instance's loss."""
        logit_losses = self.logit_losses(outputs, temperature)
        if self.equal_gradients:
            logit_losses = with_equal_gradients(logit_losses, outputs.student_logits, self.mean_gradient_norm)
        return {
            "task": self.task_weight * outputs.task_loss,
            **logit_losses,
            **self.feature_losses(outputs),
        }

    def mean_gradient_norm(self, norm: Tensor) -> Tensor:
        """Return for each instance the mean norm of its run's whole batch, ``(N,)``.

        Args:
            norm: ``(N,)`` of the instances' gradients, or of those in this process' share of the batch.
        """
        means = mean_norm(self.gather(norm).unflatten(0, (self.num_runs, -1)))
        return means.expand(-1, len(norm) // self.num_runs).flatten()

    def create_optimizer(self) -> torch.optim.Optimizer | None:
        """Return an optimiser of those parameters that the run's must not train; None where it trains them all."""
        return None

    def after_update(self, outputs: InstanceOutputs) -> None:
        """Take note of an update that was made on these outputs, such as in a memory; without gradients."""


def _itself(values: Tensor) -> Tensor:
    return values


def features_of(outputs: InstanceOutputs) -> tuple[Features, Features]:
    """Return the student's and the teacher's features.

    Raises:
        ValueError: if the outputs hold none.
    """
    if outputs.student_features is None or outputs.teacher_features is None:
        raise ValueError("this method needs outputs with features: see forward_with_features")
    return outputs.student_features, outputs.teacher_features


def regions_of(outputs: InstanceOutputs) -> Regions:
    """Return which parts of which images the instances are.

    Raises:
        ValueError: if they are whole images.
    """
    if outputs.regions is None:
        raise ValueError("this method needs outputs whose instances are regions of images")
    return outputs.regions
