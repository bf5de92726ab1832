"""Logits of a batch, and outputs for two views of its images."""

from __future__ import annotations

import torch

from rlkd_env.instances.outputs import InstanceOutputs


def logits(n: int, c: int, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def two_views(n: int, c: int, scale: float = 3.0) -> InstanceOutputs:
    first, second = logits(n, c, seed=0, scale=scale), logits(n, c, seed=1, scale=scale)
    return InstanceOutputs(*first, second_student_logits=second[0], second_teacher_logits=second[1])
