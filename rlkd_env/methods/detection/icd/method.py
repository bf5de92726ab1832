"""Instance-conditional knowledge distillation of detectors (Kang et al., arXiv 2110.12724)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of, regions_of
from rlkd_env.methods.detection.fpn import matching_levels
from rlkd_env.methods.detection.icd.decoder import InstanceDecoder, position_embedding, shown_positions, split_heads
from rlkd_env.methods.detection.icd.queries import Queries, sample_queries
from rlkd_env.methods.feature_method import FeatureMethod, require_detectors
from rlkd_env.utils.options import Count, NonNegative, Positive


def identification_loss(real_logits: Tensor, queries: Queries) -> Tensor:
    """Return each image's mean binary cross-entropy ``(B,)`` of its queries being real, from logits ``(B, K)``."""
    losses = F.binary_cross_entropy_with_logits(real_logits, queries.is_real.to(real_logits.dtype), reduction="none")
    return _mean_of(losses, queries.is_used)


def offset_loss(offsets: Tensor, queries: Queries) -> Tensor:
    """Return each image's mean ``(B,)``, over its real boxes, of the summed errors of the four offsets ``(B, K, 4)``.

    The errors of left and right are measured in widths of the box, those of top and bottom in heights. The loss of an
    image without boxes is 0.
    """
    return _mean_of(((offsets - queries.offsets).abs() / queries.sizes.repeat(1, 1, 2)).sum(dim=-1), queries.is_real)


def masked_imitation_loss(student_values: Tensor, teacher_values: Tensor, mask: Tensor) -> Tensor:
    """Return Σ M · mean_c (LN(V_s) - LN(V_t))² / Σ M ``(B,)``, the sums running over an image's heads and positions.

    LN, a layer norm without parameters, gives the values of a head at a position mean 0 and variance 1. The values V_s
    and V_t are ``(B, H, S, D / H)`` and the mask M is ``(B, H, S)``; where it is 0 everywhere, so is the loss.
    """
    size = student_values.shape[-1:]
    difference = F.layer_norm(student_values, size) - F.layer_norm(teacher_values, size)
    return _mean_of(difference.square().mean(dim=-1).flatten(start_dim=1), mask.flatten(start_dim=1))


class ICD(FeatureMethod):
    """KD + ``feature_weight`` · imitation of the teacher's maps where they speak of objects + the decoder's losses.

    Beside the student, a decoder learns from the teacher's maps which boxes are real and where their sides are; its
    losses are :func:`identification_loss` and :func:`offset_loss`. Its attention to a box is the box's mask. Weighted
    by the sum of an image's masks, the student's values imitate the teacher's (:func:`masked_imitation_loss`). The
    teacher's values are the decoder's; the student's are a linear map of its own maps, trained by the imitation. The
    student gets no gradient from the decoder's losses, and the decoder none from the imitation. Borders of one colour,
    beside images that are not square, get no attention and so are not imitated.

    Everything trained here has its own AdamW (weight decay 1e-4), whatever the student's optimiser. Published values:
    feature_weight 3 for two-stage and 8 for one-stage detectors, 8 heads, a learning rate of 1e-4. The authors' code
    decays it along a cosine and clips gradients to a norm of 0.01, which hardly affects AdamW; neither is done here.
    Each loss is a mean over an image's boxes (the authors average the decoder's over the batch) and is the loss of each
    of the image's instances; images without boxes have none. Fake boxes are drawn by
    :func:`~rlkd_env.methods.detection.icd.queries.sample_queries`.

    Args:
        heads: The number of attention heads H, which must divide the width of the teacher's maps.
        decoder_learning_rate: The learning rate of the decoder's AdamW.
        warmup_epochs: The epochs in which only the decoder learns and the student's maps take no part; 0.14 are the
            1,000 updates of 16 images on COCO in the authors' code.

    Raises:
        UsageError: If the networks are not detectors or have no two maps of the same size, if the teacher's maps differ
            in width or the heads do not divide it, or if the learning rate is not positive.
    """

    tasks: tuple[TaskName, ...] = ("detection",)
    is_stochastic = True

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 1.0,
        kd_weight: NonNegative = 1.0,
        feature_weight: NonNegative = 3.0,
        heads: Count = 8,
        decoder_learning_rate: Positive = 1e-4,
        warmup_epochs: NonNegative = 0.14,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        num_classes = require_detectors(pair, "icd")
        self.student_levels, self.teacher_levels = zip(*matching_levels(pair, "icd"), strict=True)
        shapes = [pair.teacher.stages[number] for number in self.teacher_levels]
        width = _width_of(shapes, "teacher")
        if width % heads or width % 4 or width == heads:
            raise UsageError(
                f"method 'icd' shares the {width} channels of the teacher's maps among {heads} heads: they must be a "
                "multiple of 4 and of the heads, two a head at least; set heads, or choose another teacher"
            )
        self.heads, self.warmup_epochs = heads, warmup_epochs
        self.decoder_learning_rate = decoder_learning_rate
        self.decoder = InstanceDecoder(num_classes, width, heads)
        student_width = _width_of([pair.student.stages[number] for number in self.student_levels], "student")
        self.student_values = nn.Linear(student_width, width)
        self.sizes = [shape[1:] for shape in shapes]
        self.positions = nn.Buffer(position_embedding(self.sizes, width), persistent=False)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return an AdamW for the decoder and the map of the student's values."""
        return torch.optim.AdamW(self.parameters(), lr=self.decoder_learning_rate, weight_decay=1e-4)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Draw fake boxes and return the terms ``icd``, ``icd_identification`` and ``icd_offsets``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        if outputs.images is None:
            raise ValueError("this method needs outputs with images")
        regions = regions_of(outputs)
        image_size = outputs.images.shape[-2:]
        queries = sample_queries(regions.real, *image_size)
        shown = regions.real.shown
        is_shown = None if shown is None else shown_positions(shown, self.sizes, *image_size)
        decoded = self.decoder(queries, _positions_of(teacher.stages, self.teacher_levels), self.positions, is_shown)
        student_maps = _positions_of(student.stages, self.student_levels)
        if outputs.epoch < self.warmup_epochs:
            student_maps = student_maps.detach()
        values = split_heads(self.student_values(student_maps), self.heads)
        losses = {
            "icd": self.feature_weight * masked_imitation_loss(values, decoded.values, decoded.mask),
            "icd_identification": identification_loss(decoded.real_logits, queries),
            "icd_offsets": offset_loss(decoded.offsets, queries),
        }
        return {name: loss[regions.images] for name, loss in losses.items()}


def _mean_of(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of each row of values ``(B, n)``, 0 for a row without weight."""
    weights = weights.to(values.dtype)
    return (weights * values).sum(dim=-1) / weights.sum(dim=-1).clamp(min=1e-6)


def _positions_of(stages: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    """Join the positions of some stages' maps ``(B, D, height, width)`` into ``(B, S, D)``."""
    return torch.cat([stages[number].flatten(start_dim=2) for number in numbers], dim=-1).transpose(1, 2)


def _width_of(shapes: Sequence[tuple[int, int, int]], network: str) -> int:
    widths = {channels for channels, _, _ in shapes}
    if len(widths) > 1:
        raise UsageError(f"method 'icd' needs a pyramid of one width: the {network}'s maps are {sorted(widths)} wide")
    return widths.pop()
