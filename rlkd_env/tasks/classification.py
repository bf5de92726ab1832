"""Image classification: an instance is an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.outputs import InstanceOutputs
from rlkd_env.tasks.base import Evaluation, Task

_EVALUATION_BATCH = 1024


class Classification(Task):
    """One label an image, top-1 accuracy."""

    def forward(self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: float) -> InstanceOutputs:
        """Forward N images through both networks, once each."""
        with torch.no_grad():
            teacher_logits = teacher(batch.images)
        return InstanceOutputs(
            student(batch.images),
            teacher_logits,
            batch.labels,
            progress,
            batch.indices,
            batch.partner_labels,
            batch.label_share,
        )

    @torch.no_grad()
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return top-1 accuracy and mean cross-entropy; reading them is the caller's choice of a synchronisation."""
        was_training = network.training
        network.eval()
        logits = torch.cat([network(chunk) for chunk in images.images.split(_EVALUATION_BATCH)])
        network.train(was_training)
        accuracy = (logits.argmax(dim=-1) == images.labels).float().mean()
        return Evaluation(accuracy, F.cross_entropy(logits, images.labels))
