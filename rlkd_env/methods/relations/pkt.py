"""Probabilistic knowledge transfer (Passalis and Tefas, arXiv 1803.10837)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32

_EPSILON = 1e-7


def pkt_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the divergences ``(N,)`` of the student's similarities within the batch from the teacher's, row by row.

    The cosine kernel K_ij = (cos(f_i, f_j) + 1) / 2 of features ``(N, width)`` gives distributions P when each row is
    divided by its sum. Instance i gets mean_j P_t,ij · log((P_t,ij + 1e-7) / (P_s,ij + 1e-7)), so the mean over the
    instances is the published loss, a mean over all N² entries. The networks' widths may differ.
    """
    student, teacher = _similarity_distributions(student_features), _similarity_distributions(teacher_features)
    return (teacher * torch.log((teacher + _EPSILON) / (student + _EPSILON))).mean(dim=-1)


class PKT(FeatureMethod):
    """KD + ``feature_weight`` · divergence of the similarities of pooled features within the batch.

    The loss of an instance depends on the others in its batch (:func:`pkt_loss`). The mean over N² entries falls as
    1/N, so the published weight, 30000, holds for batches of 64.
    """

    published_weight = 30000.0

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``pkt`` ``(N,)``."""
        student, teacher = features_of(outputs)
        return {"pkt": self.feature_weight * pkt_loss(student.pooled, teacher.pooled)}


def _similarity_distributions(features: Tensor) -> Tensor:
    directions = F.normalize(at_least_float32(features), dim=-1, eps=_EPSILON)
    similarities = (directions @ directions.T + 1.0) / 2.0
    return similarities / similarities.sum(dim=-1, keepdim=True)
