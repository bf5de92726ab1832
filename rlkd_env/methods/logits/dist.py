"""Distillation from a stronger teacher: correlations in place of a divergence (Huang et al., arXiv 2205.10536)."""

from __future__ import annotations

from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method
from rlkd_env.utils.options import NonNegative

_EPSILON = 1e-8


def correlation_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 - Pearson's correlation of probabilities ``(N, C)``, between classes and within them, each ``(N,)``.

    The first compares an instance's probabilities of all classes (equation 5). The second compares all instances'
    probabilities of a class, averaged over the classes (equation 6): its part of an instance is 1 - N / C · Σ over the
    classes of the product of both networks' deviations from the class' mean, divided by their norms. So the mean over
    the instances is the published loss, and an instance's part depends on the others in its batch.
    """
    between = 1.0 - _products(student, teacher, dim=1).sum(dim=1)
    within = 1.0 - len(student) * _products(student, teacher, dim=0).mean(dim=1)
    return between, within


class DIST(Method):
    """``task_weight`` · cross-entropy + T² · (``beta`` · between classes + ``gamma`` · within classes), equation 9.

    Each network's probabilities are those at the instance's temperatures. The published weights are 1, 1 and 1 at T = 1
    (ImageNet), and beta and gamma 2 at T = 4 for CIFAR-100. The authors' code multiplies by T², their paper does not.
    Where several runs are stacked, each would need its own correlations within classes, so they are not.

    Args:
        task_weight: The weight of the cross-entropy.
        beta: The weight of the correlation between classes.
        gamma: The weight of the correlations within classes.
        temperature_squared: Whether both terms carry the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    def __init__(
        self,
        task_weight: NonNegative = 1.0,
        beta: NonNegative = 2.0,
        gamma: NonNegative = 2.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight)
        self.beta, self.gamma, self.temperature_squared = beta, gamma, temperature_squared

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``dist_between`` and ``dist_within``, each ``(N,)``."""
        student = (outputs.student_logits / temperature.student.unsqueeze(-1)).softmax(dim=-1)
        teacher = (outputs.teacher_logits / temperature.teacher.unsqueeze(-1)).softmax(dim=-1)
        between, within = correlation_losses(student, teacher)
        if self.temperature_squared:
            between, within = temperature.scale(between), temperature.scale(within)
        return {"dist_between": self.beta * between, "dist_within": self.gamma * within}


def _products(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Return the products ``(N, C)`` of deviations from the mean along a dimension, over the product of their norms."""
    student, teacher = (values - values.mean(dim=dim, keepdim=True) for values in (student, teacher))
    norms = student.norm(dim=dim, keepdim=True) * teacher.norm(dim=dim, keepdim=True)
    return student * teacher / (norms + _EPSILON)
