"""What outputs compute once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rlkd_env.instances.outputs import InstanceOutputs, log_softmax


def logits(n: int, c: int, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


@pytest.mark.parametrize(("rows", "classes"), [(300, 10), (300, 2), (300, 40), (20, 10)])
def test_many_narrow_rows_have_the_same_log_softmax(rows: int, classes: int) -> None:
    logits = (10.0 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))).requires_grad_()
    weights = torch.linspace(-1.0, 1.0, rows * classes).view(rows, classes)
    found, expected = log_softmax(logits), F.log_softmax(logits, dim=-1)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((values * weights).sum(), logits)[0] for values in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_whoever_asks_for_the_cross_entropy_first_leaves_the_loss_its_gradient() -> None:
    outputs = InstanceOutputs(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    with torch.no_grad():
        assert not outputs.student_cross_entropy.requires_grad
    assert outputs.task_loss.requires_grad
