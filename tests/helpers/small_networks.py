"""Networks with feature maps that are forwarded in a blink, and outputs made of features without any network."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import METHODS, Pair, change_of_student
from rlkd_env.models import create_model
from rlkd_env.models.taps.features import Features, FeatureShapes, Taps, forward_with_features
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun


class SmallNetwork(nn.Module):
    """A 3x3 convolution with batch norm and ReLU a stage, halving the map from the second on; then mean and linear."""

    def __init__(self, widths: tuple[int, ...], num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        for number, width in enumerate(widths):
            convolution = nn.Conv2d(channels, width, 3, stride=1 + (number > 0), padding=1, bias=False)
            self.stages.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
            channels = width
        self.classifier = nn.Linear(channels, num_classes)
        stages, activations = (tuple(f"stages.{n}{end}" for n in range(len(widths))) for end in ("", ".2"))
        self.taps = Taps(stages, activations, "classifier")

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stages(images).mean(dim=(2, 3)))


class FlatNetwork(nn.Sequential):
    """No maps at all, only a pooled feature."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
        self.taps = Taps((), (), "3")


def frozen_teacher(widths: tuple[int, ...] = (6, 8)) -> nn.Module:
    torch.manual_seed(1)
    return SmallNetwork(widths).eval().requires_grad_(False)


def small_networks(method: str = "kd") -> dict[str, Any]:
    """A random teacher for Digits and what creates its student, for ``build_run``, which the method can compare."""
    has_two_heads = any(METHODS[part].uses_two_heads for part in method.split("+"))
    student = partial(create_model, "deit64_patch4", 10, (1, 8, 8)) if has_two_heads else lambda: SmallNetwork((4, 5))
    return {"teacher": frozen_teacher(), "student": student}


def real_outputs(
    n: int, student: nn.Module, teacher: nn.Module, dtype: torch.dtype = torch.float32, two_views: bool = False
) -> InstanceOutputs:
    """Outputs of two networks on random images, with gradients to the student's weights; a second view is mirrored."""
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        teacher_logits, teacher_features = forward_with_features(teacher, images)
    student_logits, student_features = forward_with_features(student, images)
    mirrored = images.flip(-1)
    second = {"second_student_logits": student(mirrored), "second_teacher_logits": teacher(mirrored).detach()}
    return InstanceOutputs(
        student_logits,
        teacher_logits,
        torch.randint(10, (n,), generator=generator),
        **(second if two_views else {}),
        indices=torch.arange(n),
        images=images,
        student_features=student_features,
        teacher_features=teacher_features,
    )


def pooled_outputs(student: Tensor, teacher: Tensor, labels: Tensor, indices: Tensor) -> InstanceOutputs:
    """Outputs that hold pooled features ``(N, D)`` and the rest as zeros."""
    logits = torch.zeros(len(labels), 10, dtype=student.dtype)
    return InstanceOutputs(
        logits,
        logits,
        labels,
        indices=indices,
        student_features=Features((), (), student),
        teacher_features=Features((), (), teacher),
    )


def pooled_pair(student: int, teacher: int, labels: Tensor) -> Pair:
    return Pair(FeatureShapes((), student), FeatureShapes((), teacher), nn.Identity(), labels)


def pair_of(student: nn.Module, teacher: nn.Module) -> Pair:
    return Pair.of(student, teacher, torch.linspace(-1.0, 1.0, 128).view(2, 1, 8, 8), torch.arange(20) % 10)


def for_method(name: str, student: nn.Module, teacher: nn.Module) -> nn.Module:
    """The student as a method has changed it, if it does so."""
    if not METHODS[name].changes_student:
        return student
    change = change_of_student(name, pair_of(student, teacher))
    assert change is not None
    return change(student)


def digits_run(method: str, **options: float) -> DistillationRun:
    """A run of 60 updates on Digits, 4 an epoch, without weight decay, from a random teacher to a smaller student."""
    config = RunConfig.from_keywords(
        epochs=15,
        device="cpu",
        precision="float32",
        method=method,
        method_options=options,
        reward="train_progress",
        weight_decay=0.0,
    )
    run = build_run(config, **small_networks(method))
    run.reset(0)
    return run


def at_temperature(n: int, value: float = 4.0) -> Temperature:
    return Temperature.shared(torch.full((n,), value))
