"""Neuron selectivity transfer (Huang and Wang, arXiv 1707.01219)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32
from rlkd_env.methods.maps import at_smaller_size, require_stages, stages_of, sum_of_stages


def selectivity_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy ``(N,)`` between the channels of two maps (equation 6).

    A channel of a map ``(N, channels, height, width)`` is a sample: the vector of its positions, of L2 norm 1. The
    kernel is (a · b)², and each of the three terms is a mean over all pairs of channels. The larger map is pooled.
    """
    student, teacher = (_channels(maps) for maps in at_smaller_size(student_map, teacher_map))
    return _kernel(teacher, teacher) + _kernel(student, student) - 2.0 * _kernel(student, teacher)


class NST(FeatureMethod):
    """KD + ``feature_weight`` · Σ over stages of the discrepancy between where the networks' channels are active.

    The kernel is the polynomial one of degree 2, with which the paper's results are best.
    """

    published_weight = 50.0

    def prepare(self, pair: Pair) -> None:
        """Check that both networks have feature maps."""
        require_stages(pair, "nst")

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``nst`` ``(N,)``."""
        losses = [selectivity_loss(*both) for both in stages_of(*features_of(outputs))]
        return {"nst": self.feature_weight * sum_of_stages(losses)}


def _channels(maps: Tensor) -> Tensor:
    return F.normalize(at_least_float32(maps).flatten(start_dim=2), dim=-1)


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.transpose(1, 2)).square().mean(dim=(1, 2))
