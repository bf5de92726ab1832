"""Relational knowledge distillation (Park et al., arXiv 1904.05068)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32
from rlkd_env.utils.options import NonNegative

_EPSILON = 1e-12


def distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the Huber losses ``(N,)`` of the distances within the batch, row by row (equation 5).

    The distances of features ``(N, width)`` are divided by the mean of those that are not 0. Instance i gets the mean
    over j, so the mean over the instances is the published loss, a mean over all N² pairs.
    """
    student, teacher = _distances(student_features), _distances(teacher_features)
    return F.smooth_l1_loss(student, teacher, reduction="none").mean(dim=-1)


def angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the Huber losses ``(N,)`` of the angles between any two instances, seen from instance i (equation 7).

    The cosines of features ``(N, width)`` are N³ numbers; instance i gets the mean over those at which it stands.
    """
    student, teacher = _angles(student_features), _angles(teacher_features)
    return F.smooth_l1_loss(student, teacher, reduction="none").mean(dim=(1, 2))


class RKD(FeatureMethod):
    """KD + ``feature_weight`` · (``distance_weight`` · distances + ``angle_weight`` · angles) of pooled features.

    The loss of an instance depends on the others in its batch (:func:`distance_loss`, :func:`angle_loss`). The angles
    take N³ numbers, and the differences N² · width: 16 MiB of float32 for 64 instances of width 256. The networks'
    widths may differ.

    Args:
        distance_weight: The weight of the distances.
        angle_weight: The weight of the angles.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        distance_weight: NonNegative = 25.0,
        angle_weight: NonNegative = 50.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``rkd_distance`` and ``rkd_angle``, each ``(N,)``."""
        student, teacher = (at_least_float32(features.pooled) for features in features_of(outputs))
        return {
            "rkd_distance": self.feature_weight * self.distance_weight * distance_loss(student, teacher),
            "rkd_angle": self.feature_weight * self.angle_weight * angle_loss(student, teacher),
        }


def _distances(features: Tensor) -> Tensor:
    """Return the distances ``(N, N)`` within a batch, divided by their mean without the zeros."""
    sizes, own = features.square().sum(dim=-1), torch.eye(len(features), dtype=torch.bool, device=features.device)
    squares = (sizes.unsqueeze(1) + sizes - 2.0 * features @ features.T).clamp(min=_EPSILON)
    distances = squares.sqrt().masked_fill(own, 0.0)
    return distances / (distances.sum() / (distances > 0).sum())


def _angles(features: Tensor) -> Tensor:
    """Return the cosines ``(N, N, N)`` of the angles at the first instance between the other two."""
    directions = F.normalize(features.unsqueeze(0) - features.unsqueeze(1), dim=-1)
    return directions @ directions.transpose(1, 2)
