"""The method of a run: what creates it for a student, and what it makes of the student before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import Splits, TaskName
from rlkd_env.errors import UsageError
from rlkd_env.methods import Method, Pair, StudentChange, change_of_student, check_method, create_method
from rlkd_env.models.outputs import logits_hook
from rlkd_env.models.taps.find_taps import add_taps
from rlkd_env.models.transformers.two_heads import has_two_heads
from rlkd_env.runs.config import DistillationConfig, RunConfig
from rlkd_env.utils.notices import tell


def method_factory(
    config: RunConfig, teacher: nn.Module, splits: Splits, task: TaskName
) -> Callable[[nn.Module], Method]:
    """Return what creates the method for a student."""
    method = check_method(config.distillation.method, dict(config.distillation.method_options))
    describe = _pair_factory(teacher, splits, task) if method.uses_features else None
    return partial(_create_its_method, config.distillation, describe)


def check_heads(config: RunConfig, student: nn.Module) -> None:
    """Check that a student has the heads that the method trains, and tell of one that it does not.

    Raises:
        UsageError: If it lacks one, or if one would stay as it is but count in the student's logits.
    """
    name = config.distillation.method
    if check_method(name, dict(config.distillation.method_options)).uses_two_heads:
        if not has_two_heads(student):
            raise UsageError(
                f"method {name!r} is for students with a distillation token, whose modules head and head_dist give the "
                f"logits of both tokens, not for a {type(student).__name__}: take --student deit64_patch4, or "
                "timm/deit_tiny_distilled_patch16_224"
            )
    elif has_two_heads(student):
        if logits_hook(student) is not None and not config.recipe.auxiliary_weight:
            raise UsageError(
                f"the student's distillation token would not be trained by the method {name!r}, but its head counts in "
                "the logits: take --method deit, or a student without that token"
            )
        if name != "cross_entropy":
            tell(f"the student has a distillation token, of which the method {name!r} makes no use; --method deit does")


def change_for_method(
    config: RunConfig, teacher: nn.Module, splits: Splits, task: TaskName, student: nn.Module
) -> StudentChange | None:
    """Return how the method changes every student that is made like this one, or None if it leaves them as they are."""
    distillation = config.distillation
    if not check_method(distillation.method, dict(distillation.method_options)).changes_student:
        return None
    pair = _pair_factory(teacher, splits, task)(student)
    return change_of_student(distillation.method, pair, **dict[str, Any](distillation.method_options))


def changed_student(create: Callable[[], nn.Module], change: StudentChange) -> nn.Module:
    """Return a fresh student that a method has changed."""
    return change(create())


def _create_its_method(
    distillation: DistillationConfig, describe: Callable[[nn.Module], Pair] | None, student: nn.Module
) -> Method:
    pair, options = None if describe is None else describe(student), dict[str, Any](distillation.method_options)
    method = create_method(distillation.method, pair, **options)
    method.equal_gradients = distillation.equal_gradients
    return method


def _pair_factory(teacher: nn.Module, splits: Splits, task: TaskName) -> Callable[[nn.Module], Pair]:
    """Return what describes a student together with the teacher."""
    images, labels = splits.train.take(torch.arange(2)), splits.train.labels
    object_classes = splits.num_classes if task == "detection" else None
    return partial(_describe, teacher, images, labels, object_classes, splits.num_classes)


def _describe(
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    object_classes: int | None,
    num_classes: int,
    student: nn.Module,
) -> Pair:
    for network in (student, teacher):
        if not hasattr(network, "taps"):  # one that the caller brought
            channels, height, width = images.shape[1:]
            add_taps(network, num_classes, (channels, height, width))
    return Pair.of(student, teacher, images, labels, object_classes)
