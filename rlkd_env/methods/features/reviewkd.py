"""Knowledge review: later stages of the student help to imitate earlier ones (Chen et al., arXiv 2104.09044)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of, warmed_up
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import mean_by_instance, shapes_of_stages, sum_of_stages
from rlkd_env.models.taps.features import Features
from rlkd_env.utils.options import NonNegative, NonNegativeInt

_WIDEST = 512
_LEVELS = (4, 2, 1)


def hierarchical_context_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the mean squared difference ``(N,)`` of two maps at full size and pooled to 4, 2 and 1 positions a side.

    Each level counts half of the one before, and the sum is divided by that of the weights; levels that are not smaller
    than the maps ``(N, channels, height, width)`` are left out.
    """
    losses, weights = [mean_by_instance((student_map - teacher_map).square())], [1.0]
    for size in _LEVELS:
        if size < student_map.shape[-2]:
            pooled = (F.adaptive_avg_pool2d(maps, size) for maps in (student_map, teacher_map))
            losses.append(mean_by_instance((next(pooled) - next(pooled)).square()))
            weights.append(weights[-1] / 2.0)
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return sum_of_stages(weighted) / sum(weights)


class AttentionFusion(nn.Module):
    """Fuses a student's map with what was fused at the stage behind it, position by position, and adapts the result.

    The weights of both are a sigmoid of a 1x1 convolution of both. The last one, behind which there is nothing, takes
    the student's feature as it is.
    """

    def __init__(self, channels: int, width: int, teacher_channels: int, fuses: bool) -> None:
        super().__init__()
        first = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        last = nn.Conv2d(width, teacher_channels, kernel_size=3, padding=1, bias=False)
        self.reduce = nn.Sequential(first, nn.BatchNorm2d(width))
        self.adapt = nn.Sequential(last, nn.BatchNorm2d(teacher_channels))
        self.weigh = nn.Conv2d(2 * width, 2, kernel_size=1) if fuses else None
        for convolution in (first, last):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, maps: Tensor, behind: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return a map of the teacher's channels and a size, and what the stage before this one fuses."""
        fused = self.reduce(maps)
        if self.weigh is not None and behind is not None:
            behind = F.interpolate(behind, fused.shape[-2:], mode="nearest")
            weights = self.weigh(torch.cat([fused, behind], dim=1)).sigmoid()
            fused = fused * weights[:, :1] + behind * weights[:, 1:]
        if fused.shape[-2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.adapt(fused), fused


class ReviewKD(FeatureMethod):
    """KD + ``feature_weight`` · Σ over stages and the pooled feature of the difference of reviewed and teacher's maps.

    From the last one on, each of the student's features is fused with those behind it (:class:`AttentionFusion`) and
    compared with the teacher's map before its activation, or the activated one if the teacher's taps name no other
    (:func:`hierarchical_context_loss`). The authors' weights differ by the pair of networks; for CIFAR-100 in
    mdistiller they are 1 by default and 5 for a ResNet32x4 and a ResNet8x4. Because of the batch norms, the loss of an
    instance depends on the others in its batch.

    Args:
        warmup_epochs: In epoch e, counted from 1, the term has min(e / warmup_epochs, 1) of its weight.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        warmup_epochs: NonNegativeInt = 20,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.warmup_epochs = warmup_epochs
        shapes = shapes_of_stages(pair, "reviewkd")
        width = min(_WIDEST, pair.student.pooled)
        fusions = [AttentionFusion(student[0], width, teacher[0], fuses=True) for student, teacher in shapes]
        self.fusions = nn.ModuleList(
            [*fusions, AttentionFusion(pair.student.pooled, width, pair.teacher.pooled, fuses=False)]
        )

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``reviewkd`` ``(N,)``."""
        student, teacher = features_of(outputs)
        own, targets = _with_pooled(student, student.stages), _with_pooled(teacher, _before_activation(teacher))
        losses: list[Tensor] = []
        behind: Tensor | None = None
        for number in range(1, len(self.fusions) + 1):
            height, width = targets[-number].shape[-2:]
            reviewed, behind = self.fusions[-number](own[-number], behind, (height, width))
            losses.append(hierarchical_context_loss(reviewed, targets[-number]))
        return {"reviewkd": self.feature_weight * warmed_up(outputs.epoch, self.warmup_epochs) * sum_of_stages(losses)}


def _with_pooled(features: Features, maps: tuple[Tensor, ...]) -> list[Tensor]:
    return [*maps, features.pooled[:, :, None, None]]


def _before_activation(features: Features) -> tuple[Tensor, ...]:
    return features.preactivations or features.stages
