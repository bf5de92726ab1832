"""Correlation congruence (Peng et al., arXiv 1904.01802)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.utils.options import Count, NonNegative


def neighbours_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the products ``(N,)`` of the embeddings' absolute differences at neighbouring instances of the batch.

    With embeddings ``(N, width)`` and d_i the absolute value of s_i - t_i, the published loss is the mean over the
    N - 1 pairs of neighbours of d_i · d_(i+1). An instance gets half of each pair that it is in, so that the mean is
    the same.
    """
    differences = (student - teacher).abs()
    products = (differences[:-1] * differences[1:]).sum(dim=-1)
    halves = 0.5 * (F.pad(products, (1, 0)) + F.pad(products, (0, 1)))
    return len(student) / max(len(student) - 1, 1) * halves


class CC(FeatureMethod):
    """KD + ``feature_weight`` · the products of the embeddings' differences at neighbouring instances of a batch.

    This is what the authors gave to RepDistiller. The paper's text has matrices of similarities within the batch in its
    place, which ``sp`` and ``pkt`` compare too. Trained linear maps to ``width`` dimensions embed both networks' pooled
    features. The loss of an instance depends on those before and after it in the batch.

    Args:
        width: The width of the embeddings.
    """

    published_weight = 0.02

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        width: Count = 128,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.student_embedding = nn.Linear(pair.student.pooled, width)
        self.teacher_embedding = nn.Linear(pair.teacher.pooled, width)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``cc`` ``(N,)``."""
        student, teacher = features_of(outputs)
        embedded = self.student_embedding(student.pooled), self.teacher_embedding(teacher.pooled)
        return {"cc": self.feature_weight * neighbours_loss(*embedded)}
