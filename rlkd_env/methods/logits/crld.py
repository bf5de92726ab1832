"""Cross-view consistency regularisation for logit distillation (Zhang et al., ACM MM 2024, arXiv 2412.16493)."""

from __future__ import annotations

from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method
from rlkd_env.methods.logits.kd import kd_loss
from rlkd_env.utils.options import NonNegative, UnitInterval


def is_sure(teacher_logits: Tensor, threshold: float) -> Tensor:
    """Return ``(N,)`` 1 where the teacher's top probability at temperature 1 is at least a threshold, 0 elsewhere."""
    return (teacher_logits.softmax(dim=-1).amax(dim=-1) >= threshold).to(teacher_logits.dtype)


class CRLD(Method):
    """``task_weight`` · cross-entropies + KD's terms within two views of every image and across them.

    With KL(a, b) = T² · KL(teacher on view a ‖ student on view b), of which the second view is more strongly augmented,

    ``within_weight`` · 1[p₁ ≥ ``within_threshold``] · (KL(1, 1) + KL(2, 2)) +
    ``across_weight`` · 1[p₂ ≥ ``across_threshold``] · (KL(1, 2) + KL(2, 1)),

    where p₁ and p₂ are the teacher's top probabilities at temperature 1 on the first and on the second view. The
    cross-entropy is the sum of both views'. An instance's temperatures are those of both views. The defaults are the
    authors' for CIFAR-100, at T = 4; for ImageNet they have a ``task_weight`` of 2 and T = 1. Their strong views make
    two of FixMatch's changes of random strengths and cut a square out; here they are torchvision's RandAugment
    (``--randaugment-magnitude``) and a rectangle erased in half of the images.

    Args:
        task_weight: The weight of the cross-entropies.
        within_weight: The weight of the terms within the views.
        across_weight: The weight of the terms across the views.
        within_threshold: How sure the teacher must be on the first view.
        across_threshold: How sure it must be on the second one.
        temperature_squared: Whether the KL terms carry the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    needs_second_view = True

    def __init__(
        self,
        task_weight: NonNegative = 1.0,
        within_weight: NonNegative = 2.0,
        across_weight: NonNegative = 0.5,
        within_threshold: UnitInterval = 0.9,
        across_threshold: UnitInterval = 0.2,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight)
        self.within_weight, self.across_weight = within_weight, across_weight
        self.within_threshold, self.across_threshold = within_threshold, across_threshold
        self.temperature_squared = temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``crld_within`` and ``crld_across``, each ``(N,)``.

        Raises:
            ValueError: If the outputs have one view alone.
        """
        second = outputs.second_view()

        def between(teacher: InstanceOutputs, student: InstanceOutputs) -> Tensor:
            return kd_loss(student.student_logits, teacher.teacher_logits, temperature, self.temperature_squared)

        within = between(outputs, outputs) + between(second, second)
        across = between(outputs, second) + between(second, outputs)
        return {
            "crld_within": self.within_weight * is_sure(outputs.teacher_logits, self.within_threshold) * within,
            "crld_across": self.across_weight * is_sure(second.teacher_logits, self.across_threshold) * across,
        }
