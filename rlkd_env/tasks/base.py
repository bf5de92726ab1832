"""What a task must offer for its networks to be distilled by :class:`~rlkd_env.run.DistillationRun`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.engine import Engine
from rlkd_env.outputs import InstanceOutputs


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on a set; tensors without dimensions, on the network's device.

    Attributes:
        accuracy: share of correct top-1 predictions.
        loss: mean cross-entropy in nats.
        confidence: mean probability of the true class: an accuracy without steps.
    """

    accuracy: Tensor
    loss: Tensor
    confidence: Tensor


class Task(ABC):
    """The task's forward pass and evaluation.

    Args:
        engine: how networks are computed; None computes plainly, on a CPU.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine(torch.device("cpu"))

    @abstractmethod
    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        teacher_logits: Tensor | None = None,
    ) -> InstanceOutputs:
        """Forward a batch through both networks, once each.

        Args:
            student: its outputs carry gradients.
            teacher: in evaluation mode; forwarded without gradients.
            batch: N images.
            with_features: whether the outputs hold images and features too.
            teacher_logits: ``(N, C)`` if they are known already; the teacher is not forwarded then.
        """

    @abstractmethod
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Measure a network in evaluation mode; its mode is the same afterwards."""
