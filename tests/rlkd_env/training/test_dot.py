"""DOT against its recurrence in NumPy, in runs, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import at_temperature, small_networks
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.dot import DOT
from rlkd_env.training.recipe import Recipe, TeacherRecipe

MakeRun = Callable[..., DistillationRun]


def test_each_gradient_has_its_momentum_and_the_weight_decay_is_the_tasks() -> None:
    both, task, other = (nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(3))
    optimizer = DOT([both, task, other], 0.1, momentum=0.9, delta=0.05, weight_decay=0.01)
    weights, of_task, of_distillation = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    single = {"task": (weights.copy(), np.zeros(2)), "other": (weights.copy(), np.zeros(2))}
    for step in range(4):
        gradients = np.array([0.3, 0.7]) * (step + 1), np.array([-0.2, 0.5]) / (step + 1)
        optimizer.zero_grad()
        both.grad, other.grad = torch.tensor(gradients[1]), torch.tensor(gradients[1])
        optimizer.keep_distillation_gradients()
        both.grad, task.grad = torch.tensor(gradients[0]), torch.tensor(gradients[0])
        optimizer.step()
        of_task = 0.85 * of_task + gradients[0] + 0.01 * weights
        of_distillation = 0.95 * of_distillation + gradients[1]
        weights = weights - 0.1 * (of_task + of_distillation)
        for name, gradient in zip(single, gradients, strict=True):
            own, buffer = single[name]
            buffer = 0.9 * buffer + gradient + 0.01 * own
            single[name] = own - 0.1 * buffer, buffer
    np.testing.assert_allclose(both.detach(), weights, rtol=1e-12)
    np.testing.assert_allclose(task.detach(), single["task"][0], rtol=1e-12)
    np.testing.assert_allclose(other.detach(), single["other"][0], rtol=1e-12)


@pytest.mark.parametrize("method", ["kd", "cross_entropy"])
def test_without_a_difference_it_is_sgd(make_run: MakeRun, method: str) -> None:
    settings = {"method": method, "learning_rate": 0.01}
    optimizers = ({"optimizer": "sgd"}, {"optimizer": "dot", "dot_delta": 0.0}, {"optimizer": "dot"})
    runs = [make_run(small_networks(), **settings, **each) for each in optimizers]
    for run in runs:
        run.reset(0)
        for _ in range(6):
            run.step(at_temperature(64))
    sgd, same, dot = (torch.cat([p.detach().flatten() for p in run.student.parameters()]) for run in runs)
    torch.testing.assert_close(same, sgd, rtol=1e-4, atol=1e-5)
    assert torch.allclose(dot, sgd, rtol=1e-4, atol=1e-5) == (method == "cross_entropy")


def test_a_restored_run_goes_on_bit_for_bit_and_every_parameter_moves(make_run: MakeRun) -> None:
    settings = {"method": "kd+fitnet", "optimizer": "dot", "learning_rate": 0.01}
    run, restored = (make_run(small_networks(), **settings) for _ in range(2))
    for each in (run, restored):
        each.reset(0)
    before = [value.detach().clone() for value in (*run.student.parameters(), *run.method.parameters())]
    for _ in range(3):
        run.step(at_temperature(64))
    restored.load_state_dict(run.state_dict())
    for _ in range(3):
        losses = [each.step(at_temperature(64)).metrics["loss"] for each in (run, restored)]
        assert torch.equal(*losses)
    after = (*run.student.parameters(), *run.method.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    for name, value in run.student.state_dict().items():
        assert torch.equal(value, restored.student.state_dict()[name])


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"momentum 0\.95 ± 0\.075, which must be in 0 to 1"):
        Recipe(optimizer="dot", momentum=0.95)
    with pytest.raises(UsageError, match=r"momentum 0\.05 ± 0\.075"):
        Recipe(optimizer="dot", momentum=0.05)
    with pytest.raises(UsageError, match="leave --clip-grad-norm out"):
        Recipe(optimizer="dot", clip_grad_norm=1.0)
    with pytest.raises(UsageError, match="dot is for distillation"):
        TeacherRecipe(optimizer="dot")
