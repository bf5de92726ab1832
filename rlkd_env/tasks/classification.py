"""Image classification: an instance is an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.models.features import forward_with_features
from rlkd_env.outputs import InstanceOutputs
from rlkd_env.tasks.base import Evaluation, Task

_EVALUATION_BATCH = 1024


class Classification(Task):
    """One label an image, top-1 accuracy."""

    def forward(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, with_features: bool = False
    ) -> InstanceOutputs:
        """Forward N images through both networks, once each."""
        forward = forward_with_features if with_features else _forward
        with torch.no_grad():
            teacher_logits, teacher_features = forward(teacher, batch.images)
        student_logits, student_features = forward(student, batch.images)
        return InstanceOutputs(
            student_logits,
            teacher_logits,
            batch.labels,
            indices=batch.indices,
            partner_labels=batch.partner_labels,
            label_share=batch.label_share,
            images=batch.images if with_features else None,
            student_features=student_features,
            teacher_features=teacher_features,
        )

    @torch.no_grad()
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return top-1 accuracy and mean cross-entropy; reading them is the caller's choice of a synchronisation."""
        was_training = network.training
        network.eval()
        logits = torch.cat([network(chunk) for chunk in images.chunks(_EVALUATION_BATCH)])
        network.train(was_training)
        accuracy = (logits.argmax(dim=-1) == images.labels).float().mean()
        return Evaluation(accuracy, F.cross_entropy(logits, images.labels))


def _forward(network: nn.Module, images: Tensor) -> tuple[Tensor, None]:
    return network(images), None
