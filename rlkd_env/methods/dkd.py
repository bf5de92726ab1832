"""Decoupled knowledge distillation (Zhao et al., arXiv 2203.08679) with a temperature per instance."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs, log_softmax
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method


def decoupled_divergences(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: Temperature
) -> tuple[Tensor, Tensor]:
    """Split KL(teacher ‖ student) into what it says of the target class and of the others (equation 6).

    With p the teacher's probability of the target at its temperature, KL = TCKD + (1 - p) · NCKD. Everything stays in
    logarithms: the target's logit against the logsumexp of the others, and the softmax of the others among themselves.

    Args:
        student_logits: ``(N, C)``.
        teacher_logits: ``(N, C)``.
        labels: ``(N,)`` target classes.
        temperature: ``(N,)`` each for teacher and student.

    Returns:
        TCKD ``(N,)``, between target and all others, and NCKD ``(N,)``, among the others, which with two classes is 0;
        in nats and without the factor T².
    """
    student_target, student_others = _decouple(student_logits / temperature.student.unsqueeze(-1), labels)
    teacher_target, teacher_others = _decouple(teacher_logits / temperature.teacher.unsqueeze(-1), labels)
    return _divergence(student_target, teacher_target), _divergence(student_others, teacher_others)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: Temperature,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature_squared: bool = True,
) -> Tensor:
    """α · TCKD + β · NCKD per instance (equation 7).

    Args:
        student_logits: ``(N, C)``.
        teacher_logits: ``(N, C)``.
        labels: ``(N,)`` target classes.
        temperature: ``(N,)`` each for teacher and student.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature_squared: multiply by T_student · T_teacher, or by the temperatures' own ``factor``.

    Returns:
        ``(N,)``.
    """
    target, others = decoupled_divergences(student_logits, teacher_logits, labels, temperature)
    loss = alpha * target + beta * others
    return temperature.scale(loss) if temperature_squared else loss


class DKD(Method):
    """``task_weight`` · cross-entropy + warm-up · T² · (``alpha`` · TCKD + ``beta`` · NCKD).

    As published: alpha 1; beta 2 (ResNet56 to ResNet20, ResNet110 to ResNet32), 6 (WRN, VGG) or 8 (ResNet32x4,
    ShuffleNets); T = 4. The target class of a mix of two images is that of the larger share.

    Args:
        task_weight: weight of the cross-entropy.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        warmup_epochs: in epoch e, counted from 1, both terms have min(e / warmup_epochs, 1) of their weight, as in the
            authors' code; 0 for none.
        temperature_squared: whether the terms carry the factor T² (T_student · T_teacher where they differ; a
            rule's own factor where it has one).
    """

    tasks: tuple[TaskName, ...] = ("classification", "detection")

    def __init__(
        self,
        task_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 2.0,
        warmup_epochs: int = 20,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight)
        self.alpha = alpha
        self.beta = beta
        self.warmup_epochs = warmup_epochs
        self.temperature_squared = temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``tckd`` and ``nckd``, each ``(N,)``."""
        target, others = decoupled_divergences(
            outputs.student_logits, outputs.teacher_logits, outputs.labels, temperature
        )
        scale: Tensor | float = self.warmup(outputs.epoch)
        if self.temperature_squared:
            own = temperature.factor
            scale = scale * temperature.student * temperature.teacher if own is None else scale * own
        return {"tckd": self.alpha * scale * target, "nckd": self.beta * scale * others}

    def warmup(self, epoch: float) -> float:
        """Return the share of the weight when ``epoch`` epochs, with fraction, are over."""
        if epoch >= self.warmup_epochs:
            return 1.0
        return (math.floor(epoch) + 1) / self.warmup_epochs


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of target and rest ``(N, 2)``, and of the other classes without it ``(N, C - 1)``."""
    target = labels.unsqueeze(-1)
    classes = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = logits.gather(-1, classes + (classes >= target))
    binary = torch.cat([logits.gather(-1, target), others.logsumexp(dim=-1, keepdim=True)], dim=-1)
    return log_softmax(binary), log_softmax(others)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
