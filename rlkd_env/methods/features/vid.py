"""Variational information distillation (Ahn et al., arXiv 1904.05835)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import at_smaller_size, shapes_of_stages, stages_of, sum_of_stages

_START_VARIANCE = 5.0
_SMALLEST_VARIANCE = 1e-5


def gaussian_loss(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Return a Gaussian's negative log-likelihood ``(N,)`` without ½ log 2π, as a mean over channels and positions.

    Mean and target are ``(N, channels, height, width)``, the variance is ``(channels,)``.
    """
    variance = variance[:, None, None]
    return (0.5 * ((mean - target).square() / variance + variance.log())).flatten(start_dim=1).mean(dim=-1)


class VariationalRegressor(nn.Module):
    """Predicts a teacher's map from a student's, with a trained variance per teacher channel.

    Three 1x1 convolutions of the teacher's width, without bias and with ReLU between them, predict the mean. The
    variance is softplus(ρ) + 1e-5 and starts at 5.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        widths = (student_channels, teacher_channels, teacher_channels)
        first, second, third = (nn.Conv2d(width, teacher_channels, kernel_size=1, bias=False) for width in widths)
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        start = math.log(math.expm1(_START_VARIANCE - _SMALLEST_VARIANCE))
        self.rho = nn.Parameter(torch.full((teacher_channels,), start))

    @property
    def variance(self) -> Tensor:
        """The variances ``(channels,)`` of the teacher's map."""
        return F.softplus(self.rho) + _SMALLEST_VARIANCE

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """Return the negative log-likelihood ``(N,)`` of the teacher's map; the larger map is pooled."""
        student_map, teacher_map = at_smaller_size(student_map, teacher_map)
        return gaussian_loss(self.mean(student_map), self.variance, teacher_map)


class VID(FeatureMethod):
    """KD + ``feature_weight`` · Σ over stages of the negative log-likelihood of the teacher's map given the student's.

    Stages are compared one to one; if one network has more stages, its first ones have no partner. The term may be
    negative where the variance is below 1. The regressors run at the resolution of every stage, which for a small
    student costs more than the student itself.
    """

    def prepare(self, pair: Pair) -> None:
        """Create a regressor for every pair of stages."""
        shapes = shapes_of_stages(pair, "vid")
        self.regressors = nn.ModuleList(VariationalRegressor(student[0], teacher[0]) for student, teacher in shapes)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``vid`` ``(N,)``."""
        maps = zip(self.regressors, stages_of(*features_of(outputs)), strict=True)
        return {"vid": self.feature_weight * sum_of_stages([regressor(*both) for regressor, both in maps])}
