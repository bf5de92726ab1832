"""Image classification: an instance is an image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.tasks.base import Evaluation, Task

_EVALUATION_BATCH = 1024
_TEACHER_BATCH = 256


class Classification(Task):
    """One label an image, top-1 accuracy."""

    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        teacher_logits: Tensor | None = None,
    ) -> InstanceOutputs:
        """Forward N images through both networks, once each; see :meth:`Task.forward`."""
        images = self.engine.images(batch.images)
        of_features: dict[str, Any] = {}
        if with_features:
            with torch.no_grad():
                teacher_logits, teacher_features = self.engine.forward_with_features(teacher, images)
            student_logits, student_features = self.engine.forward_with_features(student, images)
            of_features = {"images": images, "student_features": student_features, "teacher_features": teacher_features}
        else:
            if teacher_logits is None:
                with torch.no_grad():
                    teacher_logits = self.engine.forward(teacher, images)
            student_logits = self.engine.forward(student, images)
        return InstanceOutputs(
            student_logits,
            teacher_logits,
            batch.labels,
            indices=batch.indices,
            partner_labels=batch.partner_labels,
            label_share=batch.label_share,
            **of_features,
        )

    def training_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return F.cross_entropy(self.engine.forward(network, self.engine.images(batch.images)), batch.labels)

    @torch.no_grad()
    def teacher_logits(self, teacher: nn.Module, images: ImageSet, limit: int) -> Tensor:
        """Return the logits ``(limit, C)``."""
        return torch.cat([teacher(chunk) for chunk in images.chunks(_TEACHER_BATCH, limit=limit)])

    @torch.no_grad()
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return top-1 accuracy, mean cross-entropy in nats and mean confidence; does not wait for the device."""
        was_training = network.training
        network.eval()
        logits = torch.cat([network(self.engine.images(chunk)) for chunk in images.chunks(_EVALUATION_BATCH)])
        network.train(was_training)
        accuracy = (logits.argmax(dim=-1) == images.labels).float().mean()
        losses = F.cross_entropy(logits, images.labels, reduction="none")
        return Evaluation(accuracy, losses.mean(), (-losses).exp().mean())
