"""Attention transfer (Zagoruyko and Komodakis, arXiv 1612.03928)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32
from rlkd_env.methods.maps import at_smaller_size, mean_by_instance, require_stages, stages_of, sum_of_stages
from rlkd_env.utils.options import NonNegative, Positive


def attention(maps: Tensor, power: float = 2.0) -> Tensor:
    """Return the attention ``(N, positions)`` of maps ``(N, channels, height, width)``, of L2 norm 1 (equation 2).

    It is the mean over the channels of the values' absolute size to a power.
    """
    return F.normalize(at_least_float32(maps).abs().pow(power).mean(dim=1).flatten(start_dim=1), dim=-1)


def attention_loss(student_map: Tensor, teacher_map: Tensor, power: float = 2.0) -> Tensor:
    """Return the mean squared difference ``(N,)`` of the attention of two maps ``(N, channels, height, width)``.

    The larger map is pooled first; the channels may differ.
    """
    student_map, teacher_map = at_smaller_size(student_map, teacher_map)
    return mean_by_instance((attention(student_map, power) - attention(teacher_map, power)).square())


class AT(FeatureMethod):
    """KD + ``feature_weight`` · Σ over stages of the mean squared difference of the networks' attention maps.

    The published weight is that of a mean over positions, as in RepDistiller and mdistiller. Those take values to their
    power without their sign, which is the same for maps after a ReLU and for the power 2.

    Args:
        power: The power of the values of which attention is the mean.
    """

    published_weight = 1000.0

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        power: Positive = 2.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.power = power

    def prepare(self, pair: Pair) -> None:
        """Check that both networks have feature maps."""
        require_stages(pair, "at")

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``at`` ``(N,)``."""
        maps = stages_of(*features_of(outputs))
        return {"at": self.feature_weight * sum_of_stages([attention_loss(*both, self.power) for both in maps])}
