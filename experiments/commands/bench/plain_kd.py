"""Plain knowledge distillation at one temperature: the loop that a user would write without this project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data import Batch, BatchStream
from rlkd_env.errors import UsageError
from rlkd_env.models.engine import Engine
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Classification

TEMPERATURE = 4.0
_WEIGHTS = (0.1, 0.9)  # the usual ones in classification, of the cross-entropy and of the KL term

_Loss = Callable[[Any, Any, Batch, Engine, int], Tensor]


def plain_kd(run: DistillationRun, engine: Engine, teacher: nn.Module | None = None) -> Callable[[int], None]:
    """Return a function that makes a number of updates of a fresh student with a run's ingredients.

    Nothing but the run's teacher, or the given one, its student, data and recipe are used.
    """
    frozen = run.frozen_teacher if teacher is None else teacher
    student = engine.prepare(run.create_student().to(run.device)).train()
    if run.create_method(student).uses_features:
        raise UsageError("plain KD has no features: bench a method of logits, such as --method kd")
    optimizer = run.recipe.create_optimizer(student.parameters())
    stream = BatchStream(run.splits.train, run.recipe.batch_size, seed=0)
    loss_of: _Loss = image_loss if isinstance(run.task, Classification) else _detector_loss
    proposals = run.task.instances_per_image
    step = 0

    def advance(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            loss = loss_of(student, frozen, stream.batch(step), engine, proposals)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1

    return advance


def image_loss(student: Any, teacher: Any, batch: Batch, engine: Engine, _: int = 0) -> Tensor:
    """Return the usual loss of classification at one temperature."""
    images = engine.images(batch.images)
    with torch.no_grad():
        teacher_logits = engine.forward(teacher, images)
    student_logits = engine.forward(student, images)
    own, others = _WEIGHTS
    return own * F.cross_entropy(student_logits, batch.labels) + others * _divergence(student_logits, teacher_logits)


def _detector_loss(student: Any, teacher: Any, batch: Batch, engine: Engine, proposals: int) -> Tensor:
    """Return torchvision's four losses of the student plus KL on the proposals that it draws."""
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    if batch.boxes is None:
        raise ValueError("detection needs batches with boxes")
    images = engine.images(batch.images)
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    targets = [{"boxes": corners, "labels": classes} for corners, classes in batch.boxes.trainable()]
    head = student.roi_heads
    head.fg_bg_sampler.batch_size_per_image = proposals
    with engine.autocast():
        maps = student.backbone(images)
        found, losses = student.rpn(ImageList(images, sizes), maps, targets)
        corners, _, labels, regression = head.select_training_samples(found, targets)
        logits, deltas = head.box_predictor(head.box_head(head.box_roi_pool(maps, corners, sizes)))
        with torch.no_grad():
            teacher_head, teacher_maps = teacher.roi_heads, teacher.backbone(images)
            pooled = teacher_head.box_head(teacher_head.box_roi_pool(teacher_maps, corners, sizes))
            teacher_logits = teacher_head.box_predictor(pooled)[0]
    own = sum((*fastrcnn_loss(logits.float(), deltas.float(), labels, regression), *losses.values()))
    return own + _divergence(logits.float(), teacher_logits.float())


def _divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    student = F.log_softmax(student_logits / TEMPERATURE, dim=-1)
    teacher = F.log_softmax(teacher_logits / TEMPERATURE, dim=-1)
    return TEMPERATURE**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
