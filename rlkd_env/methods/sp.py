"""Similarity-preserving knowledge distillation (Tung and Mori, arXiv 1907.09682)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32, require_stages


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared difference of the two networks' similarities within the batch, by row.

    With F the maps, one flat row an instance, G = F Fᵀ with rows of L2 norm 1. Instance i has
    Σ_j (G_t,ij - G_s,ij)² / N, so the mean over instances is the batch's loss ‖G_t - G_s‖² / N².

    Args:
        student_map: ``(N, channels, height, width)``.
        teacher_map: likewise, of any other size.

    Returns:
        ``(N,)``.
    """
    return (_similarities(teacher_map) - _similarities(student_map)).square().mean(dim=-1)


class SP(FeatureMethod):
    """KD + ``feature_weight`` · squared difference of the similarities of the last maps within the batch.

    An instance's value depends on the others in its batch. The batch's loss falls about as 1/N, so the published
    weight, 3000, holds for batches of 64.

    Args:
        pair: the networks.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of KD's KL term; 0 for none.
        feature_weight: weight of :func:`sp_loss`.
        temperature_squared: whether the KL term carries the factor T².

    Raises:
        UsageError: if a network has no feature maps.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: float = 0.1,
        kd_weight: float = 0.9,
        feature_weight: float = 3000.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, feature_weight, temperature_squared)
        require_stages(pair, "sp")

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``sp``, ``(N,)``."""
        student, teacher = features_of(outputs)
        return {"sp": self.feature_weight * sp_loss(student.stages[-1], teacher.stages[-1])}


def _similarities(maps: Tensor) -> Tensor:
    flat = at_least_float32(maps.flatten(start_dim=1))
    return F.normalize(flat @ flat.T, dim=-1)
