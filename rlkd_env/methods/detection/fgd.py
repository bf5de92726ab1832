"""Focal and global distillation of detectors (Yang et al., arXiv 2111.11837)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data.boxes import Boxes
from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of, regions_of
from rlkd_env.methods.detection.fpn import matching_levels
from rlkd_env.methods.feature_method import FeatureMethod, require_detectors
from rlkd_env.methods.maps import sum_of_stages
from rlkd_env.utils.options import NonNegative, Positive


def object_masks(boxes: Boxes, image_size: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return how much each position of a map counts as an object's and as background, each ``(B, height, width)``.

    A position of an object counts one over the number of the box's positions, that of the smallest box where several
    meet; all positions of the background count alike, one altogether. Crowds are background. The image's size and the
    map's are heights and widths.
    """
    scale = torch.tensor([size[1] / image_size[1], size[0] / image_size[0]], device=boxes.device)
    first = (boxes.corners[..., :2] * scale).floor()
    last = (boxes.corners[..., 2:] * scale).ceil()
    columns, rows = (torch.arange(count, device=boxes.device) for count in (size[1], size[0]))
    in_columns = (columns >= first[..., :1]) & (columns <= last[..., :1])
    in_rows = (rows >= first[..., 1:]) & (rows <= last[..., 1:])
    share = boxes.is_single / (last - first + 1.0).prod(dim=-1)
    counted = share[..., None, None] * (in_rows.unsqueeze(-1) & in_columns.unsqueeze(-2))
    objects = F.pad(counted, (0, 0, 0, 0, 0, 1)).amax(dim=1)
    background = (objects == 0).to(objects.dtype)
    return objects, background / background.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)


def attention_of(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the attention ``(B, height, width)`` to positions and ``(B, C)`` to channels, each 1 on average."""
    sizes = maps.abs()
    positions = (sizes.mean(dim=1).flatten(start_dim=1) / temperature).softmax(dim=-1)
    channels = (sizes.mean(dim=(2, 3)) / temperature).softmax(dim=-1)
    return (positions * positions.shape[1]).unflatten(1, maps.shape[-2:]), channels * channels.shape[1]


class GlobalContext(nn.Module):
    """Adds to all positions of maps ``(B, C, height, width)`` what a small network makes of their weighted mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.weigh = nn.Conv2d(channels, 1, kernel_size=1)
        last = nn.Linear(hidden, channels)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
        nn.init.kaiming_normal_(self.weigh.weight, mode="fan_in", nonlinearity="relu")
        for parameter in (*list(self.weigh.parameters())[1:], *last.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps with their context."""
        weights = self.weigh(maps).flatten(start_dim=2).softmax(dim=-1)
        context = (maps.flatten(start_dim=2) * weights).sum(dim=-1)
        return maps + self.transform(context)[:, :, None, None]


class LevelImitation(nn.Module):
    """Compares the maps of one level of two pyramids, of student and teacher."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        is_same = student_channels == teacher_channels
        self.adapter = nn.Identity() if is_same else nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
        self.student_context, self.teacher_context = GlobalContext(teacher_channels), GlobalContext(teacher_channels)

    def forward(
        self, student: Tensor, teacher: Tensor, boxes: Boxes, image_size: tuple[int, int], temperature: float
    ) -> list[Tensor]:
        """Return the losses ``(B,)`` of objects, background, attention and relation."""
        student = self.adapter(student)
        height, width = student.shape[-2:]
        masks = object_masks(boxes, image_size, (height, width))
        (own_positions, own_channels), (positions, channels) = (
            attention_of(maps, temperature) for maps in (student, teacher)
        )
        weighted = ((student - teacher).square() * channels[:, :, None, None]).sum(dim=1) * positions
        attention = (own_positions - positions).abs().sum(dim=(1, 2)) + (own_channels - channels).abs().sum(dim=1)
        relation = (self.student_context(student) - self.teacher_context(teacher)).square().sum(dim=(1, 2, 3))
        return [*((weighted * mask).sum(dim=(1, 2)) for mask in masks), attention, relation]


class FGD(FeatureMethod):
    """KD + ``feature_weight`` · Σ over a pyramid's levels of four comparisons of the detectors' maps.

    Objects and background are compared apart, position by position, weighted by the teacher's attention to positions
    and channels (:func:`object_masks`, :func:`attention_of`); the student's attention itself is compared with the
    teacher's; and so are the maps with the context of the whole image, of which a trained block for each network tells
    (:class:`GlobalContext`). All are sums over a map, so that the weights are small; the defaults are the authors' for
    two-stage detectors, those for one-stage detectors are 20 times (relation: 10 times) as large. Each instance gets
    the loss of its image.

    Args:
        objects_weight: The weight of the positions of objects.
        background_weight: The weight of the background's.
        attention_weight: The weight of the difference of the attentions.
        relation_weight: The weight of the maps with their context.
        attention_temperature: Divides the sizes that attention is the softmax of; unrelated to that of the logits.

    Raises:
        UsageError: If the networks are not detectors or have no two maps of the same size.
    """

    tasks: tuple[TaskName, ...] = ("detection",)

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 1.0,
        kd_weight: NonNegative = 1.0,
        feature_weight: NonNegative = 1.0,
        objects_weight: NonNegative = 5e-5,
        background_weight: NonNegative = 2.5e-5,
        attention_weight: NonNegative = 5e-5,
        relation_weight: NonNegative = 5e-7,
        attention_temperature: Positive = 0.5,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        require_detectors(pair, "fgd")
        self.levels = matching_levels(pair, "fgd")
        self.weights = (objects_weight, background_weight, attention_weight, relation_weight)
        self.attention_temperature = attention_temperature
        shapes = [
            (pair.student.stages[student][0], pair.teacher.stages[teacher][0]) for student, teacher in self.levels
        ]
        self.imitations = nn.ModuleList(LevelImitation(*channels) for channels in shapes)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``fgd_objects``, ``..._background``, ``..._attention``, ``..._relation``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        regions = regions_of(outputs)
        if outputs.images is None:
            raise ValueError("this method needs outputs with images")
        height, width = outputs.images.shape[-2:]
        around = (regions.real, (height, width), self.attention_temperature)
        losses = [
            imitation(student.stages[own], teacher.stages[other], *around)
            for imitation, (own, other) in zip(self.imitations, self.levels, strict=True)
        ]
        names = ("fgd_objects", "fgd_background", "fgd_attention", "fgd_relation")
        by_part = zip(names, self.weights, zip(*losses, strict=True), strict=True)
        return {
            name: self.feature_weight * weight * sum_of_stages(list(of_levels))[regions.images]
            for name, weight, of_levels in by_part
        }
