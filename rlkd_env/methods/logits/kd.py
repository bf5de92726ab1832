"""Plain knowledge distillation (Hinton, Vinyals and Dean, arXiv 1503.02531) with a temperature per instance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs, log_softmax
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method
from rlkd_env.utils.options import NonNegative


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature, temperature_squared: bool = True
) -> Tensor:
    """Return the temperature-scaled KL(teacher ‖ student) ``(N,)`` of each instance, in nats.

    Args:
        student_logits: The student's logits ``(N, C)``.
        teacher_logits: The teacher's logits ``(N, C)``.
        temperature: The temperatures ``(N,)`` of teacher and student.
        temperature_squared: Whether to multiply by T_student · T_teacher, which keeps the gradient from shrinking as
            1/T², or by the temperatures' own ``factor`` if they have one.
    """
    student = log_softmax(student_logits / temperature.student.unsqueeze(-1))
    teacher = log_softmax(teacher_logits / temperature.teacher.unsqueeze(-1))
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature.scale(divergence) if temperature_squared else divergence


class KD(Method):
    """``task_weight`` · cross-entropy + ``kd_weight`` · T² · KL(teacher ‖ student).

    Args:
        task_weight: The weight of the cross-entropy.
        kd_weight: The weight of the KL term.
        temperature_squared: Whether the KL term carries the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    tasks: tuple[TaskName, ...] = ("classification", "detection")

    def __init__(
        self, task_weight: NonNegative = 0.1, kd_weight: NonNegative = 0.9, temperature_squared: bool = True
    ) -> None:
        super().__init__(task_weight)
        self.kd_weight = kd_weight
        self.temperature_squared = temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the KL term ``(N,)``."""
        loss = kd_loss(outputs.student_logits, outputs.teacher_logits, temperature, self.temperature_squared)
        return {"kd": self.kd_weight * loss}
