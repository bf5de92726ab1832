"""The base class of all KD methods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlkd_env.data.boxes import RegionBoxes, Regions
from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.equal_gradients import mean_norm, with_equal_gradients
from rlkd_env.models.taps.features import Features, FeatureShapes, feature_shapes


@dataclass(frozen=True)
class Pair:
    """What a method that compares features needs to know about the two networks and the data.

    Attributes:
        student: The sizes of the student's features.
        teacher: The sizes of the teacher's features.
        teacher_network: The teacher, frozen and in evaluation mode.
        labels: The classes ``(n,)`` of all training images.
        object_classes: For detectors, the number of object classes without the background; otherwise None.
        image_shape: The images' channels, height and width, or None if they are not known.
    """

    student: FeatureShapes
    teacher: FeatureShapes
    teacher_network: nn.Module
    labels: Tensor
    object_classes: int | None = None
    image_shape: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, object_classes: int | None = None
    ) -> Pair:
        """Describe two networks by the features they compute for images ``(N, channels, height, width)``."""
        student_shapes, teacher_shapes = feature_shapes(student, images), feature_shapes(teacher, images)
        return cls(student_shapes, teacher_shapes, teacher, labels, object_classes, tuple(images.shape[1:]))


class StudentChange(Protocol):
    """What a method does to every fresh student before it is trained."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of :func:`~rlkd_env.models.create_model` that make the changed network of the plain one."""

    def __call__(self, network: nn.Module) -> nn.Module:
        """Change a network in place, and return it."""


class Method(nn.Module, ABC):
    """A distillation loss per instance, made of named terms.

    The run's optimiser trains a method's own parameters (adapters, embeddings) together with the student, except
    those that :meth:`create_optimizer` handles.

    Args:
        task_weight: The weight of the task's own loss (for classification, the cross-entropy).

    Attributes:
        uses_temperature: Whether any term depends on the temperatures.
        uses_features: Whether the method needs outputs with images and features.
        changes_student: Whether :meth:`change_of_student` changes the student, which is saved as it is then.
        uses_two_heads: Whether the student must have a head for a distillation token, whose logits are compared with
            the teacher's, beside that for its class token.
        tasks: The tasks that the method supports.
        is_addition: Whether the method is KD plus terms of its own, which are all that it adds to a composition.
        is_stochastic: Whether the loss draws from torch's global generator, so that it cannot be captured or stacked.
        waits_for_device: Whether computing the loss waits for the device, so that it cannot be captured.
        needs_second_view: Whether the method compares two views of every image, the second one more strongly changed.
        gather: Maps values ``(n, ...)`` of this process's share of the batch to those of the whole batch ``(N, ...)``,
            for a memory that must be the same in all processes of a distributed run.
        equal_gradients: Whether the gradient of each instance's temperature-dependent terms with respect to the
            student's logits is scaled to the batch's mean norm. The values of the terms stay as they are.
        num_runs: The number of runs whose equally large batches follow one another in the outputs.
    """

    uses_temperature = True
    uses_features = False
    changes_student = False
    uses_two_heads = False
    tasks: tuple[TaskName, ...] = ("classification",)
    is_addition = False
    is_stochastic = False
    waits_for_device = False
    needs_second_view = False

    def __init__(self, task_weight: float) -> None:
        super().__init__()
        self.task_weight = task_weight
        self.gather: Callable[[Tensor], Tensor] = _itself
        self.equal_gradients = False
        self.num_runs = 1

    @classmethod
    def change_of_student(cls, pair: Pair, options: Mapping[str, Any]) -> StudentChange | None:  # noqa: ARG003
        """Return how a student is changed before it is trained, or None if it stays as it is.

        Args:
            pair: The plain student and the teacher.
            options: The method's own options.

        Raises:
            UsageError: If one of the networks does not fit.
        """
        return None

    @abstractmethod
    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the weighted terms ``(N,)`` that depend on the temperatures, by name; they see the logits alone."""

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the weighted terms ``(N,)`` that do not depend on the temperatures, by name."""
        return {}

    def forward(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return all weighted terms ``(N,)`` by name; their sum is the loss of each instance."""
        logit_losses = self.logit_losses(outputs, temperature)
        if self.equal_gradients:
            logit_losses = with_equal_gradients(logit_losses, outputs.logits_of_student, self.mean_gradient_norm)
        return {"task": self.task_weight * outputs.task_loss, **logit_losses, **self.feature_losses(outputs)}

    def check_networks(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that the method can compare these networks.

        Raises:
            UsageError: If it cannot.
        """

    def remark(self, num_logits: int) -> str | None:  # noqa: ARG002
        """Return what is worth knowing about the method for networks of so many logits, in words for the user."""
        return None

    def mean_gradient_norm(self, norm: Tensor) -> Tensor:
        """Return the mean gradient norm of its run's whole batch for each instance of this process's share ``(n,)``."""
        means = mean_norm(self.gather(norm).unflatten(0, (self.num_runs, -1)))
        return means.expand(-1, len(norm) // self.num_runs).flatten()

    def create_optimizer(self) -> torch.optim.Optimizer | None:
        """Return an optimiser for the parameters that the run must not train itself, or None if it trains them all."""
        return None

    def after_update(self, outputs: InstanceOutputs) -> None:
        """Record an update made on these outputs, for example in a memory. Called without gradients."""


def _itself(values: Tensor) -> Tensor:
    return values


def warmed_up(epoch: float | Tensor, warmup_epochs: int) -> float | Tensor:
    """Return the share min(e / warmup_epochs, 1) of a weight in epoch e, counted from 1, after so many epochs."""
    if isinstance(epoch, Tensor):
        return ((epoch.floor() + 1) / max(warmup_epochs, 1)).clamp(max=1.0)
    if epoch >= warmup_epochs:
        return 1.0
    return (math.floor(epoch) + 1) / warmup_epochs


def features_of(outputs: InstanceOutputs) -> tuple[Features, Features]:
    """Return the student's and the teacher's features."""
    if outputs.student_features is None or outputs.teacher_features is None:
        raise ValueError("this method needs outputs with features: see forward_with_features")
    return outputs.student_features, outputs.teacher_features


def regions_of(outputs: InstanceOutputs) -> Regions:
    """Return the image regions that the instances stand for."""
    if outputs.regions is None:
        raise ValueError("this method needs outputs whose instances are regions of images")
    return outputs.regions


def boxes_of(outputs: InstanceOutputs) -> RegionBoxes:
    """Return where the detectors place the objects of the instances."""
    if outputs.boxes is None:
        raise ValueError("this method needs outputs of detectors, with the boxes of every region")
    return outputs.boxes
