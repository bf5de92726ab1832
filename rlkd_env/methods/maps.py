"""What methods that compare maps stage by stage have in common: which stages belong together, and at which size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.methods.base import Pair
from rlkd_env.models.taps.features import Features

Shape = tuple[int, int, int]
"""Channels, height and width of a map."""


def require_stages(pair: Pair, method: str) -> None:
    """Check that both networks expose feature maps."""
    for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
        if not shapes.stages:
            raise UsageError(f"method {method!r} needs networks with feature maps; the {network} has none")


def shapes_of_stage(pair: Pair, method: str, stage: int) -> tuple[Shape, Shape]:
    """Check that both networks have a stage, and return the sizes of the student's and the teacher's map there."""
    require_stages(pair, method)
    for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
        count = len(shapes.stages)
        if not -count <= stage < count:
            raise UsageError(f"method {method!r} takes stage {stage}, but the {network} has only {count}: set stage")
    return pair.student.stages[stage], pair.teacher.stages[stage]


def shapes_of_stages(pair: Pair, method: str) -> list[tuple[Shape, Shape]]:
    """Return the sizes of the student's and the teacher's maps at all stages that belong together.

    Stages are compared one to one, from the last; if one network has more, its first ones have no partner.
    """
    require_stages(pair, method)
    count = min(len(pair.student.stages), len(pair.teacher.stages))
    return list(zip(pair.student.stages[-count:], pair.teacher.stages[-count:], strict=True))


def require_pooled_maps(pair: Pair, method: str) -> None:
    """Check that both networks' classifiers read the mean of the last map, and so can be asked about its positions."""
    require_stages(pair, method)
    for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
        if not shapes.pools_last_map:
            raise UsageError(
                f"method {method!r} asks a network's classifier about the positions of its last map, but the "
                f"{network}'s does not read the mean of that map: choose another network, or another method"
            )


def require_preactivations(pair: Pair, method: str) -> None:
    """Check that both networks expose their maps before the activation."""
    require_stages(pair, method)
    for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
        if not shapes.preactivations:
            raise UsageError(
                f"method {method!r} compares maps before their activation, which the {network}'s taps do not name: "
                "choose another network, or another method"
            )


def stages_of(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """Return the maps ``(N, channels, height, width)`` of both networks at all stages that belong together."""
    count = min(len(student.stages), len(teacher.stages))
    return list(zip(student.stages[-count:], teacher.stages[-count:], strict=True))


def at_smaller_size(student_map: Tensor, teacher_map: Tensor) -> tuple[Tensor, Tensor]:
    """Return two maps at the height and width of the smaller one, to which the larger one is average-pooled."""
    size = min(student_map.shape[-2], teacher_map.shape[-2]), min(student_map.shape[-1], teacher_map.shape[-1])
    return pooled_to(student_map, size), pooled_to(teacher_map, size)


def pooled_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pool maps ``(N, channels, height, width)`` to a height and width, if they have others."""
    return maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size)


def mean_by_instance(values: Tensor) -> Tensor:
    """Return the mean ``(N,)`` over everything but the instances of values ``(N, ...)``."""
    return values.flatten(start_dim=1).mean(dim=-1)


def sum_of_stages(losses: list[Tensor]) -> Tensor:
    """Return the sum ``(N,)`` of the losses ``(N,)`` of several stages."""
    return torch.stack(losses).sum(dim=0)
