"""Similarity-preserving knowledge distillation (Tung and Mori, arXiv 1907.09682)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32
from rlkd_env.methods.maps import require_stages


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the squared differences ``(N,)`` of the two networks' similarities within the batch, row by row.

    With F the flattened maps ``(N, channels, height, width)``, one row per instance, G = F Fᵀ with rows scaled to an L2
    norm of 1. Instance i gets Σ_j (G_t,ij - G_s,ij)² / N, so the mean over the instances is the published loss ‖G_t -
    G_s‖² / N². The networks' maps may differ in everything but N.
    """
    return (_similarities(teacher_map) - _similarities(student_map)).square().mean(dim=-1)


class SP(FeatureMethod):
    """KD + ``feature_weight`` · squared difference of the similarities of the last maps within the batch.

    The loss of an instance depends on the others in its batch (:func:`sp_loss`). The batch's loss falls roughly as 1/N,
    so the published weight, 3000, holds for batches of 64.
    """

    published_weight = 3000.0

    def prepare(self, pair: Pair) -> None:
        """Check that both networks have feature maps."""
        require_stages(pair, "sp")

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``sp`` ``(N,)``."""
        student, teacher = features_of(outputs)
        return {"sp": self.feature_weight * sp_loss(student.stages[-1], teacher.stages[-1])}


def _similarities(maps: Tensor) -> Tensor:
    flat = at_least_float32(maps.flatten(start_dim=1))
    return F.normalize(flat @ flat.T, dim=-1)
