"""Image classification: an instance is an image."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.models.engine import Engine
from rlkd_env.models.outputs import LogitsHook, logits_hook
from rlkd_env.models.taps.features import Features
from rlkd_env.models.transformers.two_heads import reading_heads
from rlkd_env.tasks.base import Evaluation, Task
from rlkd_env.utils.randomness import seeded

_MOST_IMAGES, _MOST_PIXELS, _MOST_PIXELS_ON_CPU = 1024, 2**22, 2**17
"""A forward without gradients takes at most so many: the maps of more do not fit a GPU's memory, or a CPU's cache."""


class Classification(Task):
    """One label an image, top-1 accuracy.

    Args:
        engine: How networks are computed.
        auxiliary_weight: The weight of the cross-entropy of auxiliary logits, if the network in training has some.
        label_smoothing: The share of the labels' probability that training spreads over all classes.
        reads_two_heads: Whether the student has a head for a distillation token, whose logits are compared with the
            teacher's, beside that for its class token.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        auxiliary_weight: float = 0.0,
        label_smoothing: float = 0.0,
        reads_two_heads: bool = False,
    ) -> None:
        super().__init__(engine)
        self.auxiliary_weight, self.label_smoothing = auxiliary_weight, label_smoothing
        self.reads_two_heads = reads_two_heads

    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        known: tuple[Tensor, Features] | None = None,
    ) -> InstanceOutputs:
        """Forward N images through both networks, once each; see :meth:`Task.forward`."""
        images = self.engine.images(batch.images)
        hook = self._auxiliary_hook(student)
        of_features: dict[str, Any] = {}
        teacher_logits = batch.teacher_logits
        with reading_heads(student) if self.reads_two_heads else nullcontext() as heads:
            if with_features:
                if known is None:
                    with torch.no_grad():
                        known = self.engine.forward_with_features(teacher, images)
                teacher_logits, of_teacher = known
                student_logits, of_student = self.engine.forward_with_features(student, images)
                of_features = {"images": images, "student_features": of_student, "teacher_features": of_teacher}
            else:
                if teacher_logits is None:
                    with torch.no_grad():
                        teacher_logits = self.engine.forward(teacher, images)
                student_logits = self.engine.forward(student, images)
        if heads is not None:
            of_features["class_logits"] = heads.of_class_token.to(student_logits.dtype)
            student_logits = heads.of_distillation_token.to(student_logits.dtype)
        if batch.second_images is not None:
            of_features |= self._second_view(student, teacher, batch.second_images, batch.second_teacher_logits)
        if hook is not None:
            of_features["auxiliary_loss"] = self._auxiliary_loss(hook, batch)
        return InstanceOutputs(
            student_logits,
            teacher_logits,
            batch.labels,
            indices=batch.indices,
            partner_labels=batch.partner_labels,
            label_share=batch.label_share,
            label_smoothing=self.label_smoothing,
            **of_features,
        )

    def _second_view(
        self, student: nn.Module, teacher: nn.Module, images: Tensor, teacher_logits: Tensor | None
    ) -> dict[str, Tensor]:
        """Forward a second view of the same images by itself, so that batch norms see either view alone."""
        images = self.engine.images(images)
        if teacher_logits is None:
            with torch.no_grad():
                teacher_logits = self.engine.forward(teacher, images)
        return {
            "second_student_logits": self.engine.forward(student, images),
            "second_teacher_logits": teacher_logits,
        }

    def training_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats."""
        hook = self._auxiliary_hook(network)
        logits = self.engine.forward(network, self.engine.images(batch.images))
        if batch.partner_labels is None:
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        else:
            loss = _cross_entropy(logits, batch, self.label_smoothing).mean()
        further = None if hook is None else self._auxiliary_loss(hook, batch)
        return loss if further is None else loss + further.mean()

    def _auxiliary_hook(self, network: nn.Module) -> LogitsHook | None:
        """Have a network keep its auxiliary logits, and return what keeps them; None where they have no weight."""
        hook = logits_hook(network) if self.auxiliary_weight else None
        if hook is not None:
            hook.keeps_auxiliary = True
        return hook

    def _auxiliary_loss(self, hook: LogitsHook, batch: Batch) -> Tensor | None:
        """Return the weighted cross-entropy ``(N,)`` of the auxiliary logits, or None if there are none."""
        losses = [_cross_entropy(logits.float(), batch) for logits in hook.take_auxiliary()]
        return self.auxiliary_weight * torch.stack(losses).sum(dim=0) if losses else None

    def forward_with(self, student: nn.Module, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        """Return the student's logits ``(N, C)`` as its tensors would make them; see :meth:`Task.forward_with`."""
        with reading_heads(student) if self.reads_two_heads else nullcontext() as heads:
            logits = super().forward_with(student, tensors, images)
        return logits if heads is None else heads.of_distillation_token

    @torch.no_grad()
    def teacher_logits(self, teacher: nn.Module, images: ImageSet, limit: int) -> Tensor:
        """Return the logits ``(limit, C)``."""
        with seeded(0, images.labels.device):
            return torch.cat([teacher(chunk) for chunk in images.chunks(_chunk_size(images), limit=limit)])

    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return top-1 accuracy, mean cross-entropy in nats and mean confidence; does not wait for the device."""
        return measured(self.logits(network, images), images.labels)

    def evaluate_probe(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return the same in the precision of training; does not wait for the device."""
        return measured(self._logits(network, images, self.engine), images.labels)

    def logits(self, network: nn.Module, images: ImageSet) -> Tensor:
        """Return a network's logits ``(N, C)`` in evaluation mode, in float32; its mode is the same afterwards."""
        return self._logits(network, images, self.engine.exact)

    @torch.no_grad()
    def _logits(self, network: nn.Module, images: ImageSet, engine: Engine) -> Tensor:
        was_training = network.training
        network.eval()
        with seeded(0, torch.device("cpu")):  # it may draw even now; a GPU's generator cannot be seeded in a capture
            chunks = images.chunks(_chunk_size(images))
            logits = torch.cat([engine.forward(network, engine.images(chunk)) for chunk in chunks])
        network.train(was_training)
        return logits


def _chunk_size(images: ImageSet) -> int:
    """Return how many images are forwarded at a time without gradients."""
    most = _MOST_PIXELS_ON_CPU if images.labels.device.type == "cpu" else _MOST_PIXELS
    return max(16, min(_MOST_IMAGES, most // math.prod(images.image_shape[1:])))


@torch.no_grad()
def measured(logits: Tensor, labels: Tensor) -> Evaluation:
    """Return what logits ``(N, C)`` say of a network for images of classes ``(N,)``."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    return Evaluation((logits.argmax(dim=-1) == labels).float().mean(), losses.mean(), (-losses).exp().mean())


def _cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy ``(N,)`` in nats; that of mixed images is mixed as they are."""

    def of(labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)

    if batch.partner_labels is None or batch.label_share is None:
        return of(batch.labels)
    return torch.lerp(of(batch.partner_labels), of(batch.labels), batch.label_share)
