"""Scale decoupled distillation: KD for regions of an image too (Wei, Luo and Luo, arXiv 2403.13512)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.logits.kd import KD, kd_loss
from rlkd_env.methods.maps import require_pooled_maps
from rlkd_env.models.taps.features import Features
from rlkd_env.utils.options import Count, NonNegative

_COMPLEMENTARY = 2.0
"""Weight of a region for which the teacher is right and for the whole image is not, or the other way round."""


def regional_logits(features: Features, scales: int) -> Tensor:
    """Return a network's logits ``(R, N, C)`` for regions of its last map ``(N, D, height, width)``.

    The map is pooled to 2^(scales - 1) positions a side, and that to half as many until there are two; the classifier
    is asked about each position.
    """
    if features.classifier is None:
        raise ValueError("this method needs features of networks with a classifier")
    finest = F.adaptive_avg_pool2d(features.stages[-1], 2 ** (scales - 1))
    pooled = [F.adaptive_avg_pool2d(finest, 2**scale).flatten(start_dim=2) for scale in range(1, scales)]
    positions = torch.cat(pooled, dim=2)
    if isinstance(features.classifier, torch.nn.Conv2d):
        return features.classifier(positions.unsqueeze(-1)).squeeze(-1).permute(2, 0, 1)
    return features.classifier(positions.permute(2, 0, 1))


class SDD(KD):
    """``task_weight`` · cross-entropy + ``kd_weight`` · the mean over the whole image and its regions of T² · KL.

    Regions are the positions of the last map pooled to 2 x 2, 4 x 4 and so on (:func:`regional_logits`). Those for
    which the teacher's top class is right while the whole image's is not, or the other way round, count twice. All of
    an instance's regions have its temperatures. The authors pool the finest regions to the whole image's, which is the
    network's own logits where the map's size is a multiple of theirs; here those stand for the whole image.

    A calibrator sees the gradient of the part for the whole image alone.

    Args:
        pair: The networks and the classes of the training images.
        task_weight: The weight of the cross-entropy.
        kd_weight: The weight of the KL terms.
        scales: The number of scales: 1 is KD, 2 adds the 2 x 2 regions, 3 the 4 x 4 regions.
        temperature_squared: Whether the KL terms carry the factor T_student · T_teacher.

    Raises:
        UsageError: If a network's classifier does not read the mean of its last map.
    """

    uses_features = True
    tasks = ("classification",)

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        scales: Count = 3,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        require_pooled_maps(pair, "sdd")
        self.scales = scales

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``sdd_whole`` and ``sdd_regions``, each ``(N,)``."""
        whole = kd_loss(outputs.student_logits, outputs.teacher_logits, temperature, self.temperature_squared)
        if self.scales == 1:
            return {"sdd_whole": self.kd_weight * whole}
        student, teacher = (regional_logits(features, self.scales) for features in features_of(outputs))
        is_right = outputs.teacher_logits.argmax(dim=-1) == outputs.labels
        is_complementary = (teacher.argmax(dim=-1) == outputs.labels) != is_right
        regions = [kd_loss(*both, temperature, self.temperature_squared) for both in zip(student, teacher, strict=True)]
        weighted = torch.stack(regions) * torch.where(is_complementary, _COMPLEMENTARY, 1.0)
        share = self.kd_weight / (1 + len(regions))
        return {"sdd_whole": share * whole, "sdd_regions": share * weighted.sum(dim=0)}
