"""Boxes, maps and outputs of detectors without a detector, and a task whose proposals are the quarters of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from small_networks import digits_run
from torch import Tensor, nn

from rlkd_env.data import Batch
from rlkd_env.data.boxes import Boxes, RegionBoxes, Regions
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods import Pair, create_method
from rlkd_env.models.taps.features import Features, FeatureShapes, Taps
from rlkd_env.runs.reward import RewardMeter
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks.classification import Classification

SIZES = ((4, 6), (2, 3))
CLASSES = 3
Box = tuple[float, float, float, float, int]
"""Left, top, right, bottom and class."""


def boxes_of(*images: Sequence[Box], crowds: Sequence[tuple[int, int]] = ()) -> Boxes:
    """Boxes of images; crowds are named by image and place."""
    made = []
    for number, image in enumerate(images):
        corners = torch.tensor([box[:4] for box in image], dtype=torch.float64).view(-1, 4)
        classes = torch.tensor([box[4] for box in image], dtype=torch.int64)
        is_crowd = torch.tensor([(number, place) in crowds for place in range(len(image))], dtype=torch.bool)
        made.append((corners, classes, is_crowd))
    return Boxes.of_images(made)


def some_boxes() -> Boxes:
    """Three images of 48 x 32: two boxes and a crowd, none, one box."""
    return boxes_of(
        [(4, 4, 20, 28, 1), (0, 0, 48, 32, 2), (30, 10, 34, 12, 3)], [], [(10, 2, 40, 20, 2)], crowds=[(0, 1)]
    )


def random_maps(images: int, width: int, seed: int = 0, sizes: Sequence[tuple[int, int]] = SIZES) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(images, width, *size, generator=generator, dtype=torch.float64) for size in sizes)


def detection_outputs(
    student: Sequence[Tensor], teacher: Sequence[Tensor], boxes: Boxes | None = None, proposals: int = 2
) -> InstanceOutputs:
    """Outputs of ``proposals`` an image of 48 x 32, with these maps and random logits."""
    count = len(student[0])
    boxes = boxes or boxes_of(*([(4, 4, 20, 28, 1)] for _ in range(count)))
    instances = count * proposals
    generator = torch.Generator().manual_seed(instances)
    logits = torch.randn(2, instances, CLASSES + 1, generator=generator, dtype=torch.float64)
    images = torch.arange(count).repeat_interleave(proposals)
    ones = torch.ones(instances, dtype=torch.float64)
    return InstanceOutputs(
        logits[0].requires_grad_(),
        logits[1],
        torch.randint(CLASSES + 1, (instances,), generator=generator),
        images=torch.zeros(count, 3, 32, 48, dtype=torch.float64),
        student_features=Features(tuple(student), (), torch.zeros(instances, 5)),
        teacher_features=Features(tuple(teacher), (), torch.zeros(instances, 5)),
        regions=Regions(torch.zeros(instances, 4), images, ones, ones, boxes),
    )


def pair_with_maps(
    student: int,
    teacher: int,
    student_sizes: Sequence[tuple[int, int]] = SIZES,
    teacher_sizes: Sequence[tuple[int, int]] = SIZES,
) -> Pair:
    """Detectors whose pyramids are so wide."""
    shapes = [
        FeatureShapes(tuple((width, *size) for size in sizes), 5)
        for width, sizes in ((student, student_sizes), (teacher, teacher_sizes))
    ]
    return Pair(*shapes, nn.Identity(), torch.zeros(4, dtype=torch.int64), object_classes=CLASSES)


class QuarterNetwork(nn.Module):
    """Two maps of the same width, 8 x 8 and 4 x 4; class logits, background first, of each quarter of an image."""

    taps = Taps(("fine", "coarse"), (), "classifier")

    def __init__(self, width: int, num_classes: int = 10) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes + 1)

    def forward(self, images: Tensor) -> Tensor:
        coarse = self.coarse(self.fine(images))
        return self.classifier(F.adaptive_avg_pool2d(coarse, 2).flatten(start_dim=2).transpose(1, 2).flatten(end_dim=1))


class Quarters(Classification):
    """A digit's box is the quarter of its image that its index names, and every fifth image has none."""

    instances_per_image = 4
    follows_logits = False

    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        teacher_logits: Tensor | None = None,
    ) -> InstanceOutputs:
        outputs = super().forward(student, teacher, batch, with_features, teacher_logits)
        quarters = torch.tensor([[x, y, x + 4, y + 4] for y in (0.0, 4.0) for x in (0.0, 4.0)])
        where, is_there = batch.indices % 4, batch.indices % 5 > 0
        classes = torch.where(is_there, batch.labels + 1, 0)
        real = Boxes(quarters[where].unsqueeze(1), classes.unsqueeze(1), torch.zeros_like(is_there).unsqueeze(1))
        is_hit = (torch.arange(4) == where.unsqueeze(1)) & is_there.unsqueeze(1)
        labels = torch.where(is_hit, classes.unsqueeze(1), 0).flatten()
        count = len(batch.labels)
        regions = Regions(
            quarters.repeat(count, 1),
            torch.arange(count).repeat_interleave(4),
            torch.full((4 * count,), 0.5),
            is_hit.float().flatten(),
            real,
        )
        return replace(outputs, labels=labels, regions=regions)


def quarters_run(method: str, **options: float) -> DistillationRun:
    """A run of 60 updates of 64 digits, 4 an epoch, from a random teacher to a narrower student."""
    torch.manual_seed(1)
    teacher = QuarterNetwork(16)
    base = digits_run("kd")

    def create_its_method(student: nn.Module) -> nn.Module:
        images, labels = base.splits.train.take(torch.arange(2)), base.splits.train.labels
        return create_method(method, Pair.of(student, teacher, images, labels, object_classes=10), **options)

    run = DistillationRun(
        task=Quarters(),
        splits=base.splits,
        teacher=teacher,
        create_student=lambda: QuarterNetwork(8),
        create_method=create_its_method,
        state=base.state,
        reward=RewardMeter("train_progress"),
        temperature_range=base.temperature_range,
        recipe=base.recipe,
    )
    run.reset(0)
    return run


def region_boxes(count: int, seed: int = 0) -> RegionBoxes:
    """Random boxes of student and teacher around the real ones; the student's have gradients."""
    generator = torch.Generator().manual_seed(seed)
    targets, student, teacher = torch.randn(3, count, 4, generator=generator, dtype=torch.float64)
    return RegionBoxes((targets + 0.5 * student).requires_grad_(), targets + 0.5 * teacher, targets)
