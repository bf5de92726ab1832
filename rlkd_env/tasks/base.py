"""What a task must offer so that its networks can be distilled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlkd_env.data import Batch, ImageSet, Splits
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.models.engine import Engine
from rlkd_env.models.taps.features import Features


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on a set; tensors without dimensions, on the network's device.

    Attributes:
        accuracy: share of correct top-1 predictions, or a detector's AP; the task's ``metric`` says which.
        loss: mean cross-entropy in nats, or the sum of all losses of a detector.
        confidence: mean probability of the true class, which changes more smoothly than the accuracy.
        details: further metrics by name, such as a detector's AP50.
    """

    accuracy: Tensor
    loss: Tensor
    confidence: Tensor
    details: dict[str, float] = field(default_factory=dict)


class Task(ABC):
    """How the networks of a task are forwarded, trained and evaluated.

    Attributes:
        metric: the name of what :attr:`Evaluation.accuracy` is.
        instances_per_image: number of instances in every image, each with a temperature of its own.
        follows_logits: whether an instance is an image and temperatures change nothing but what follows from the logits
            of :meth:`forward`, so that logits may be kept, forwarded again and stacked.
    """

    metric = "accuracy"
    instances_per_image = 1
    follows_logits = True

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine(torch.device("cpu"))

    @abstractmethod
    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        known: tuple[Tensor, Features] | None = None,
    ) -> InstanceOutputs:
        """Forward a batch through both networks, once each, the teacher in evaluation mode and without gradients.

        If the batch has a second view of its images, that is forwarded after the first.

        With features, the outputs hold images and features too. The teacher is not forwarded if its logits ``(N, C)``
        come with the batch or, with features, if both are ``known`` already.
        """

    def forward_with(self, student: nn.Module, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        """Return the student's logits ``(N, C)``, which are compared with the teacher's, as other tensors make them."""
        logits: Tensor = functional_call(student, tensors, (images,))
        return logits

    @abstractmethod
    def training_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return a network's own loss on a batch, without a teacher; no dimensions, with gradient."""

    @abstractmethod
    def teacher_logits(self, teacher: nn.Module, images: ImageSet, limit: int) -> Tensor:
        """Return the logits ``(n, C)`` on up to ``limit`` images, as training compares them with the student's."""

    @abstractmethod
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Measure a network in evaluation mode; its mode is the same afterwards."""

    def evaluate_probe(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Measure a network for a reward, as often as after every update; likewise, but perhaps less exactly."""
        return self.evaluate(network, images)

    def num_logits(self, splits: Splits) -> int:
        """Return the number C of classes that networks for this data tell apart."""
        return splits.num_classes
