"""What a finished detection run shows: what teacher and student find, and which temperatures proposals get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from experiments.session.detections import MOST_IMAGES, write_detections
from rlkd_env.data import Batch, ImageSet
from rlkd_env.instances.temperature import Policy
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks.detection.task import Detection
from rlkd_env.utils.randomness import seeded


@torch.no_grad()
def show_detections(
    folder: Path, run: DistillationRun, student: nn.Module, policy: Policy, class_names: tuple[str, ...]
) -> None:
    """Write ``detections.safetensors`` of the first validation images.

    Args:
        folder: of the run.
        run: that is over.
        student: that it is about.
        policy: that chose the temperatures at the run's end, and is asked for those of the proposals shown.
        class_names: of the classes 1 to C.
    """
    task = cast(Detection, run.task)
    positions = torch.arange(min(MOST_IMAGES, len(run.splits.validation)))
    shown = run.splits.validation.subset(positions)
    boxes = shown.take_boxes(positions)
    if boxes is None:
        raise ValueError("these images have no boxes")
    batch = Batch(shown.images, shown.labels, positions.to(run.device), boxes=boxes)
    with seeded(0, run.device):
        outputs = task.forward(student.eval(), run.frozen_teacher, batch)
    outputs = replace(outputs, progress=run.progress, epoch=float(run.epoch), step=run.step_count)
    regions = outputs.regions
    if regions is None:
        raise ValueError("the instances are whole images")
    instances = (regions.corners, policy(outputs).student, regions.objectness)
    per_image = (values.split(task.instances_per_image) for values in instances)
    write_detections(
        folder,
        _pixels(shown),
        class_names,
        boxes.trainable(),
        task.detect(run.frozen_teacher, shown),
        task.detect(student, shown),
        list(zip(*per_image, strict=True)),
    )


def _pixels(images: ImageSet) -> Tensor:
    """Undo the normalisation, giving ``(k, channels, height, width)`` in [0, 1]."""
    preprocessing = images.preprocessing
    if not preprocessing.mean:
        return images.images
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.deviation))
    return images.images.cpu() * deviation + mean
