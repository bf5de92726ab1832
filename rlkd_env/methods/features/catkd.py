"""Class attention transfer (Guo et al., arXiv 2304.12777)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import mean_by_instance, pooled_to, require_pooled_maps
from rlkd_env.models.taps.features import Features
from rlkd_env.utils.options import Count, NonNegative


def class_activation_maps(features: Features) -> Tensor:
    """Return how much each position of the last map speaks for each class, ``(N, C, height, width)``.

    That is the classifier without its bias, as a 1x1 convolution of the map.
    """
    if not isinstance(features.classifier, nn.Linear | nn.Conv2d):
        raise ValueError("this method needs features of networks with a linear classifier")
    weight = features.classifier.weight
    return F.conv2d(features.stages[-1], weight.view(*weight.shape[:2], 1, 1))


class CATKD(FeatureMethod):
    """KD + ``feature_weight`` · the mean squared difference of the pooled class activation maps.

    The authors change the networks, so that they classify by a 1x1 convolution without bias before pooling; here the
    networks stay as they are, which without the bias is the same. Their weights are 1 for the cross-entropy and, for
    CIFAR-100, 15 for a ResNet32x4 and a ResNet8x4.

    Args:
        size: The height and width to which the maps are pooled.
        normalized: Whether each class' map is scaled to an L2 norm of 1, as for the experiments on transfer alone.
    """

    published_weight = 15.0

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        size: Count = 2,
        normalized: bool = False,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        require_pooled_maps(pair, "catkd")
        self.size, self.normalized = size, normalized

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``catkd`` ``(N,)``."""
        maps = [pooled_to(class_activation_maps(features), (self.size, self.size)) for features in features_of(outputs)]
        if self.normalized:
            maps = [F.normalize(each.flatten(start_dim=2), dim=-1) for each in maps]
        return {"catkd": self.feature_weight * mean_by_instance((maps[0] - maps[1]).square())}
