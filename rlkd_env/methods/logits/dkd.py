"""Decoupled knowledge distillation (Zhao et al., arXiv 2203.08679) with a temperature per instance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs, log_softmax
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method, warmed_up
from rlkd_env.utils.options import NonNegative, NonNegativeInt


def decoupled_divergences(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: Temperature
) -> tuple[Tensor, Tensor]:
    """Split KL(teacher ‖ student) into a part for the target class and one for the others (equation 6).

    With p the teacher's probability of the target at its temperature, KL = TCKD + (1 - p) · NCKD. Everything is
    computed in logarithms: the target's logit against the logsumexp of the others, and the others' log-softmax.

    The logits are ``(N, C)``, labels and temperatures ``(N,)``. Returned are TCKD ``(N,)``, between the target and all
    others, and NCKD ``(N,)``, among the others (0 with two classes), both in nats and without the factor T².
    """
    student_target, student_others = _decouple(student_logits / temperature.student.unsqueeze(-1), labels)
    teacher_target, teacher_others = _decouple(teacher_logits / temperature.teacher.unsqueeze(-1), labels)
    return _divergence(student_target, teacher_target), _divergence(student_others, teacher_others)


class DKD(Method):
    """``task_weight`` · cross-entropy + warm-up · T² · (``alpha`` · TCKD + ``beta`` · NCKD), equation 7.

    The published values are T = 4, alpha 1, and beta 2 (ResNet56 to ResNet20, ResNet110 to ResNet32), 6 (WRN, VGG) or
    8 (ResNet32x4, ShuffleNets). When two images are mixed, the target class is that of the larger share.

    Args:
        task_weight: The weight of the cross-entropy.
        alpha: The weight of TCKD.
        beta: The weight of NCKD.
        warmup_epochs: In epoch e, counted from 1, both terms have min(e / warmup_epochs, 1) of their weight, as in the
            authors' code; 0 disables the warm-up.
        temperature_squared: Whether both terms carry the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    tasks: tuple[TaskName, ...] = ("classification", "detection")

    def __init__(
        self,
        task_weight: NonNegative = 1.0,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 2.0,
        warmup_epochs: NonNegativeInt = 20,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight)
        self.alpha, self.beta, self.warmup_epochs = alpha, beta, warmup_epochs
        self.temperature_squared = temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``tckd`` and ``nckd``, each ``(N,)``."""
        student, teacher = outputs.student_logits, outputs.teacher_logits
        target, others = decoupled_divergences(student, teacher, outputs.labels, temperature)
        scale = warmed_up(outputs.epoch, self.warmup_epochs)
        if self.temperature_squared:
            own = temperature.factor
            scale = scale * temperature.student * temperature.teacher if own is None else scale * own
        return {"tckd": self.alpha * scale * target, "nckd": self.beta * scale * others}

    def remark(self, num_logits: int) -> str | None:
        """Return that the second term is empty if there is only one class beside the target."""
        if num_logits > 2:
            return None
        return "with two classes, or one beside the background, the second term of DKD (nckd) is always 0"


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of target and rest ``(N, 2)`` and those among the other classes ``(N, C - 1)``."""
    target = labels.unsqueeze(-1)
    classes = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = logits.gather(-1, classes + (classes >= target))
    binary = torch.cat([logits.gather(-1, target), others.logsumexp(dim=-1, keepdim=True)], dim=-1)
    return log_softmax(binary), log_softmax(others)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
