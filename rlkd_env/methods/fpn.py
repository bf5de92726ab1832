"""Imitation of the maps of a detector's feature pyramid (FPN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of, regions_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32, require_detectors

_EPSILON = 1e-6


def matching_levels(pair: Pair, method: str) -> list[tuple[int, int]]:
    """Return which levels of the two pyramids are of the same size, from fine to coarse.

    Networks whose backbones differ may have pyramids of different height. From the coarsest level of the student on,
    each takes the coarsest level of the teacher of its size that is still free.

    Returns:
        Numbers of the student's and of the teacher's stage.

    Raises:
        UsageError: if no two levels are of the same size.
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
    """Mean over channels and positions of the squared difference.

    Args:
        student_map: ``(B, channels, height, width)``.
        teacher_map: likewise.

    Returns:
        ``(B,)``.
    """
    return (student_map - teacher_map).square().mean(dim=(1, 2, 3))


def correlation_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Half of the mean squared difference of maps that were standardised (PKD, arXiv 2207.02039).

    Every channel is given mean 0 and variance 1 over the batch and its positions. So the mean over the images is 1 - r,
    with r the mean over the channels of Pearson's correlation, and an image's value depends on the others in its batch.

    Args:
        student_map: ``(B, channels, height, width)``.
        teacher_map: likewise.

    Returns:
        ``(B,)``.
    """
    return 0.5 * imitation_loss(_standardised(student_map), _standardised(teacher_map))


class FPN(FeatureMethod):
    """KD + ``feature_weight`` · Σ over the pyramid's levels of the difference of the detectors' maps.

    The student's maps come to the teacher's width by 1x1 convolutions, which are trained. They are there where the
    widths are the same, too: that a channel of the student shall mean what the same channel of the teacher means is
    known to hold students back (Chen et al., NeurIPS 2017; Wang et al., arXiv 1906.03609). ``normalized`` compares the
    channels' correlations instead, as PKD does, which leaves the size of the maps free; like PKD it then has
    convolutions where widths differ alone, and its published weight is 6.

    An image's value is that of each of its instances. Levels that only one network has are left out.

    Args:
        pair: the networks, both detectors.
        task_weight: weight of the student's own losses.
        kd_weight: weight of KD's KL term on the proposals' logits; 0 for none.
        feature_weight: weight of the sum over levels.
        normalized: whether maps are standardised by channel before they are compared.
        temperature_squared: whether the KL term carries the factor T².

    Raises:
        UsageError: if the networks are no detectors, or no two maps of theirs are of the same size.
    """

    tasks: tuple[TaskName, ...] = ("detection",)

    def __init__(
        self,
        pair: Pair,
        task_weight: float = 1.0,
        kd_weight: float = 1.0,
        feature_weight: float = 1.0,
        normalized: bool = False,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, feature_weight, temperature_squared)
        require_detectors(pair, "fpn")
        self.levels = matching_levels(pair, "fpn")
        self.compare = correlation_loss if normalized else imitation_loss
        self.adapters = nn.ModuleList()
        for student, teacher in self.levels:
            widths = pair.student.stages[student][0], pair.teacher.stages[teacher][0]
            is_needed = not normalized or widths[0] != widths[1]
            self.adapters.append(nn.Conv2d(*widths, kernel_size=1) if is_needed else nn.Identity())

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``fpn``, ``(N,)``."""
        student, teacher = features_of(outputs)
        losses = [
            self.compare(adapter(student.stages[number]), teacher.stages[other])
            for adapter, (number, other) in zip(self.adapters, self.levels, strict=True)
        ]
        return {"fpn": self.feature_weight * torch.stack(losses).sum(dim=0)[regions_of(outputs).images]}


def _standardised(maps: Tensor) -> Tensor:
    maps = at_least_float32(maps)
    centred = maps - maps.mean(dim=(0, 2, 3), keepdim=True)
    return centred * (centred.square().mean(dim=(0, 2, 3), keepdim=True) + _EPSILON).rsqrt()
