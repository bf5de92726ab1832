"""The method without a teacher."""

from __future__ import annotations

import torch

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def logits(n: int, c: int, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def test_cross_entropy_method_ignores_the_teacher() -> None:
    student, teacher, labels = logits(8, 10)
    parts = create_method("cross_entropy")(InstanceOutputs(student, teacher, labels), Temperature.shared(torch.ones(8)))
    assert list(parts) == ["task"]
    torch.testing.assert_close(parts["task"], torch.nn.functional.cross_entropy(student, labels, reduction="none"))
