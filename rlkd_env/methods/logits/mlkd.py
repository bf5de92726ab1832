"""Multi-level logit distillation (Jin, Wang and Lin, CVPR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method
from rlkd_env.methods.logits.kd import kd_loss
from rlkd_env.utils.options import NonNegative

_MULTIPLES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""The published temperatures 2, 3, 4, 5 and 6, in multiples of the one in the middle."""


def batch_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared differences ``(N,)`` of the products of instances' probabilities ``(N, C)``, summed by row.

    The mean over the instances is the published loss, ‖P_t P_tᵀ - P_s P_sᵀ‖² / N.
    """
    return (teacher @ teacher.T - student @ student.T).square().sum(dim=-1)


def class_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the parts ``(N,)`` of the squared differences of the products of classes' probabilities ``(N, C)``.

    The published loss is ‖D‖² / C with D = P_tᵀ P_t - P_sᵀ P_s. Because D is a sum over the instances, ‖D‖² is the sum
    of p_tᵀ D p_t - p_sᵀ D p_s over them; N / C times this is an instance's part, which may be negative.
    """
    difference = teacher.T @ teacher - student.T @ student
    parts = ((teacher @ difference) * teacher - (student @ difference) * student).sum(dim=-1)
    return student.shape[0] / student.shape[1] * parts


class MLKD(Method):
    """``task_weight`` · cross-entropy + ``kd_weight`` · Σ over five temperatures of the terms of three levels.

    The levels are instances, with KD's term, the batch (:func:`batch_loss`) and the classes (:func:`class_loss`).

    The temperatures are 0.5, 0.75, 1, 1.25 and 1.5 times the instance's own, which for T = 4 are the published ones.
    KD's term carries the factor T², the others do not. The parts of an instance depend on the others in its batch. As
    the terms are several times those of KD, the authors halve the learning rate for CIFAR-100.

    Two things of the authors' code are left out. It computes all terms on two views of every image, of which a stronger
    augmentation makes the second; a run has one view. And it multiplies the first view's terms by the share of
    instances, or classes, of which the teacher is less sure than the median, which is a half.

    Args:
        task_weight: The weight of the cross-entropy.
        kd_weight: The weight of all terms.
        temperature_squared: Whether KD's term carries the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    def __init__(
        self, task_weight: NonNegative = 0.1, kd_weight: NonNegative = 0.9, temperature_squared: bool = True
    ) -> None:
        super().__init__(task_weight)
        self.kd_weight, self.temperature_squared = kd_weight, temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``mlkd_instances``, ``mlkd_batch`` and ``mlkd_classes``, each ``(N,)``."""
        terms: dict[str, list[Tensor]] = {"mlkd_instances": [], "mlkd_batch": [], "mlkd_classes": []}
        for multiple in _MULTIPLES:
            own = _scaled(temperature, multiple)
            student = (outputs.student_logits / own.student.unsqueeze(-1)).softmax(dim=-1)
            teacher = (outputs.teacher_logits / own.teacher.unsqueeze(-1)).softmax(dim=-1)
            of_instances = kd_loss(outputs.student_logits, outputs.teacher_logits, own, self.temperature_squared)
            terms["mlkd_instances"].append(of_instances)
            terms["mlkd_batch"].append(batch_loss(student, teacher))
            terms["mlkd_classes"].append(class_loss(student, teacher))
        return {name: self.kd_weight * torch.stack(losses).sum(dim=0) for name, losses in terms.items()}


def _scaled(temperature: Temperature, multiple: float) -> Temperature:
    factor = None if temperature.factor is None else multiple**2 * temperature.factor
    return Temperature(multiple * temperature.teacher, multiple * temperature.student, factor)
