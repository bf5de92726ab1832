"""Imitation of the maps of a detector's feature pyramid network (FPN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of, regions_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32, require_detectors
from rlkd_env.utils.options import NonNegative

_EPSILON = 1e-6


def matching_levels(pair: Pair, method: str) -> list[tuple[int, int]]:
    """Return the indices of the student's and teacher's levels of the same size, from fine to coarse.

    Pyramids on different backbones may have different numbers of levels. Starting from the coarsest level of the
    student, each takes the coarsest unused level of the teacher that has its size.
    """
    free = list(range(len(pair.teacher.stages)))
    levels = []
    for number in reversed(range(len(pair.student.stages))):
        size = pair.student.stages[number][1:]
        if same := [other for other in free if pair.teacher.stages[other][1:] == size]:
            free.remove(same[-1])
            levels.append((number, same[-1]))
    if not levels:
        raise UsageError(
            f"method {method!r} compares maps of the same size, and of those student and teacher have none: choose "
            "detectors with feature pyramids of the same strides"
        )
    return levels[::-1]


def imitation_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the mean squared difference ``(B,)`` over channels and positions of maps ``(B, channels, h, w)``."""
    return (student_map - teacher_map).square().mean(dim=(1, 2, 3))


def correlation_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return half of the mean squared difference ``(B,)`` of standardised maps (PKD, arXiv 2207.02039).

    Every channel gets mean 0 and variance 1 over the batch and its positions. The mean over the images is therefore
    1 - r, with r the mean of the channels' Pearson correlations, and the loss of an image depends on the others in the
    batch. The maps are ``(B, channels, height, width)``.
    """
    return 0.5 * imitation_loss(_standardised(student_map), _standardised(teacher_map))


class FPN(FeatureMethod):
    """KD + ``feature_weight`` · Σ over the pyramid's levels of the difference of the detectors' maps.

    Trained 1x1 convolutions map the student's maps to the teacher's width. They are used even if the widths agree,
    because forcing each channel of the student to match the same channel of the teacher is known to hold students back
    (Chen et al., NeurIPS 2017; Wang et al., arXiv 1906.03609). With ``normalized`` the channels' correlations are
    compared instead, as in PKD (published weight 6), which ignores the scale of the maps; as in PKD, there are then
    convolutions only where the widths differ. Each instance gets the loss of its image; levels that only one network
    has are left out.

    Args:
        normalized: Whether maps are standardised by channel before they are compared.
    """

    tasks: tuple[TaskName, ...] = ("detection",)

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 1.0,
        kd_weight: NonNegative = 1.0,
        feature_weight: NonNegative = 1.0,
        normalized: bool = False,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        require_detectors(pair, "fpn")
        self.levels = matching_levels(pair, "fpn")
        self.compare = correlation_loss if normalized else imitation_loss
        self.adapters = nn.ModuleList()
        for student, teacher in self.levels:
            widths = pair.student.stages[student][0], pair.teacher.stages[teacher][0]
            is_needed = not normalized or widths[0] != widths[1]
            self.adapters.append(nn.Conv2d(*widths, kernel_size=1) if is_needed else nn.Identity())

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``fpn`` ``(N,)``."""
        student, teacher = features_of(outputs)
        levels = zip(self.adapters, self.levels, strict=True)
        losses = [self.compare(adapter(student.stages[s]), teacher.stages[t]) for adapter, (s, t) in levels]
        return {"fpn": self.feature_weight * torch.stack(losses).sum(dim=0)[regions_of(outputs).images]}


def _standardised(maps: Tensor) -> Tensor:
    maps = at_least_float32(maps)
    centred = maps - maps.mean(dim=(0, 2, 3), keepdim=True)
    return centred * (centred.square().mean(dim=(0, 2, 3), keepdim=True) + _EPSILON).rsqrt()
