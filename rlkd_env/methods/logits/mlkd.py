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

_FEW_CLASSES = 20


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


def share_at_most_median(values: Tensor) -> Tensor:
    """Return the share, without dimensions, of values ``(n,)`` that are not above their median: a half or a bit more.

    The median of an even number of values is the mean of the two in the middle.
    """
    ordered, count = values.sort().values, len(values)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return (values <= median).to(values.dtype).mean()


class MLKD(Method):
    """``task_weight`` · cross-entropy + ``kd_weight`` · Σ over five temperatures of the terms of three levels.

    The levels are instances, with KD's term, the batch (:func:`batch_loss`) and the classes (:func:`class_loss`).

    The temperatures are 0.5, 0.75, 1, 1.25 and 1.5 times the instance's own, which for T = 4 are the published ones.
    KD's term carries the factor T², the others do not. The parts of an instance depend on the others in its batch. As
    the terms are several times those of KD, the authors halve the learning rate for CIFAR-100.

    With two views of every image, as the authors have it, the second one is more strongly augmented; temperatures are
    the same for both. The sum is then what the authors' code adds up, not quite what its names say. The cross-entropy
    is that of both views. The first view's terms are multiplied by the share of instances (for the classes' term, of
    classes) of which the teacher is less sure than the median, which is a half. Of the second view there is KD's term
    alone, without that factor and at the three temperatures in the middle; at the other two the code takes the first
    view's once more. Its batch and class terms are computed there, but never added. The authors' strong views make two
    of FixMatch's changes of random strengths and cut a square out; here they are torchvision's RandAugment
    (``--randaugment-magnitude``) and a rectangle erased in half of the images.

    With one view all of its terms count in full, and an update costs half as much.

    Args:
        task_weight: The weight of the cross-entropy.
        kd_weight: The weight of all terms.
        two_views: Whether there is a second view of every image.
        temperature_squared: Whether KD's term carries the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    def __init__(
        self,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        two_views: bool = True,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight)
        self.kd_weight, self.temperature_squared = kd_weight, temperature_squared
        self.needs_second_view = two_views

    def remark(self, num_logits: int) -> str | None:
        """Return what to do where few classes make the terms large."""
        if num_logits > _FEW_CLASSES:
            return None
        return "with few classes MLKD's terms are large: if the student does not learn, halve --learning-rate"

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return ``mlkd_instances``, ``mlkd_batch``, ``mlkd_classes``, with two views ``mlkd_second``, each ``(N,)``.

        Raises:
            ValueError: If there are to be two views and the outputs have one.
        """
        of_instances, of_batch, of_classes = [], [], []
        for multiple in _MULTIPLES:
            own = temperature.times(multiple)
            student = (outputs.student_logits / own.student.unsqueeze(-1)).softmax(dim=-1)
            teacher = (outputs.teacher_logits / own.teacher.unsqueeze(-1)).softmax(dim=-1)
            of_instances.append(self._kd_loss(outputs, own))
            of_batch.append(batch_loss(student, teacher))
            of_classes.append(class_loss(student, teacher))
        names = ("mlkd_instances", "mlkd_batch", "mlkd_classes")
        sums = [self.kd_weight * torch.stack(losses).sum(dim=0) for losses in (of_instances, of_batch, of_classes)]
        if not self.needs_second_view:
            return dict(zip(names, sums, strict=True))
        second = outputs.second_view()
        sure = share_at_most_median(outputs.teacher_probabilities.amax(dim=-1))
        shares = (sure, sure, share_at_most_median(outputs.teacher_probabilities.sum(dim=0)))
        weighed = {name: share * loss for name, share, loss in zip(names, shares, sums, strict=True)}
        further = [self._kd_loss(second, temperature.times(multiple)) for multiple in _MULTIPLES[1:-1]]
        further += [of_instances[0], of_instances[-1]]
        return {**weighed, "mlkd_second": self.kd_weight * torch.stack(further).sum(dim=0)}

    def _kd_loss(self, outputs: InstanceOutputs, temperature: Temperature) -> Tensor:
        return kd_loss(outputs.student_logits, outputs.teacher_logits, temperature, self.temperature_squared)
