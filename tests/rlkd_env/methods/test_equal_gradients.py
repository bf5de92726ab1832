"""Equalised gradients: every norm the batch's mean, every direction and loss as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_logits import two_views
from torch import Tensor

from agents.rules.create import create_rule
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import Method, create_method
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]
COUNT, CLASSES = 32, 10
METHODS = [("kd", {}), ("kd", {"temperature_squared": False}), ("dkd", {}), ("dkd", {"beta": 8.0, "warmup_epochs": 0})]


def batch(equal_teacher: int = 0) -> InstanceOutputs:
    """Make up a batch; for the first few instances teacher and student agree, so that their gradient is 0."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3.0 * torch.randn(2, COUNT, CLASSES, generator=generator, dtype=torch.float64)
    teacher[:equal_teacher] = student[:equal_teacher]
    return InstanceOutputs(student.requires_grad_(True), teacher, torch.arange(COUNT) % CLASSES)


def temperatures() -> Temperature:
    return Temperature(
        torch.linspace(0.5, 8.0, COUNT, dtype=torch.float64), torch.linspace(6.0, 1.0, COUNT, dtype=torch.float64)
    )


def gradients(method: Method, outputs: InstanceOutputs, temperature: Temperature, equal: bool) -> Tensor:
    """Return the gradient of all terms but the task's by the student's logits, ``(N, C)``."""
    method.equal_gradients = equal
    losses = method(outputs, temperature)
    del losses["task"]
    return torch.autograd.grad(sum(losses.values()).sum(), outputs.student_logits)[0]


def cosine(left: Tensor, right: Tensor) -> Tensor:
    return torch.cosine_similarity(left, right, dim=-1, eps=1e-30)


@pytest.mark.parametrize(("name", "options"), METHODS, ids=str)
def test_norms_are_equal_directions_and_mean_as_before(name: str, options: dict[str, Any]) -> None:
    method, outputs = create_method(name, **options), batch()
    plain, equal = (gradients(method, outputs, temperatures(), equal) for equal in (False, True))
    norms = plain.norm(dim=-1)
    assert norms.max() > 3.0 * norms.min()
    torch.testing.assert_close(equal.norm(dim=-1), norms.mean().expand(COUNT))
    torch.testing.assert_close(cosine(plain, equal), torch.ones(COUNT, dtype=torch.float64))


@pytest.mark.parametrize(("name", "options"), METHODS, ids=str)
def test_the_losses_keep_their_values_and_the_task_its_gradient(name: str, options: dict[str, Any]) -> None:
    method, outputs = create_method(name, **options), batch()
    plain = method(outputs, temperatures())
    method.equal_gradients = True
    equal = method(outputs, temperatures())
    assert plain.keys() == equal.keys()
    for part in plain:
        torch.testing.assert_close(plain[part], equal[part], rtol=0, atol=0)
    task = [
        torch.autograd.grad(losses["task"].sum(), outputs.student_logits, retain_graph=True)[0]
        for losses in (plain, equal)
    ]
    torch.testing.assert_close(*task, rtol=0, atol=0)


def test_a_gradient_that_is_0_stays_so_and_the_others_share_the_mean_of_the_rest() -> None:
    method, outputs = create_method("kd"), batch(equal_teacher=5)
    same = Temperature.shared(torch.full((COUNT,), 4.0, dtype=torch.float64))
    plain, equal = (gradients(method, outputs, same, equal) for equal in (False, True))
    torch.testing.assert_close(equal[:5], plain[:5], rtol=0, atol=0)
    expected = plain[5:].norm(dim=-1).mean()
    torch.testing.assert_close(equal[5:].norm(dim=-1), expected.expand(COUNT - 5))
    torch.testing.assert_close(equal.norm(dim=-1).mean(), plain.norm(dim=-1).mean())
    nothing = batch(equal_teacher=COUNT)
    assert not gradients(method, nothing, same, equal=True).isnan().any()


@pytest.mark.parametrize("name", ["lskd", "dtkd"])
def test_what_a_rule_adds_by_its_own_gradient_is_part_of_the_norm(name: str) -> None:
    method, outputs = create_method("kd"), batch()
    plain, equal = (gradients(method, outputs, create_rule(name)(outputs), equal) for equal in (False, True))
    torch.testing.assert_close(equal.norm(dim=-1), plain.norm(dim=-1).mean().expand(COUNT))
    torch.testing.assert_close(cosine(plain, equal), torch.ones(COUNT, dtype=torch.float64))


def test_the_norm_is_over_the_logits_of_both_views() -> None:
    method = create_method("crld", within_threshold=0.0, across_threshold=0.0)
    outputs = two_views(COUNT, CLASSES)
    logits = [values.requires_grad_(True) for values in outputs.logits_of_student]
    found = []
    for equal in (False, True):
        method.equal_gradients = equal
        losses = method(outputs, temperatures())
        del losses["task"]
        found.append(torch.cat(torch.autograd.grad(sum(losses.values()).sum(), logits), dim=1))
    plain, equal_norms = (gradient.norm(dim=-1) for gradient in found)
    torch.testing.assert_close(equal_norms, plain.mean().expand(COUNT))
    torch.testing.assert_close(cosine(*found), torch.ones(COUNT, dtype=torch.float64))


def test_without_distillation_there_is_nothing_to_equalise() -> None:
    method, outputs = create_method("cross_entropy"), batch()
    method.equal_gradients = True
    assert list(method(outputs, temperatures())) == ["task"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "dkd", "sp"])
def test_a_run_with_equal_gradients_is_another_one(make_run: MakeRun, method: str) -> None:
    weights = []
    for equal in (True, True, False):
        run = make_run(equal_gradients=equal, method=method, student="digits_cnn" if method == "sp" else "auto")
        run.reset(0)
        run.advance(create_rule("difficulty"))
        weights.append(next(run.student.parameters()).detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stacked", "workers", "serial"])
def test_several_runs_have_a_mean_each(make_run: MakeRun, mode: str) -> None:
    run = make_run(equal_gradients=True, batch_size=16)
    rule = create_rule("difficulty")
    runs = create_parallel_runs(run, 3, mode)  # type: ignore[arg-type]
    runs.reset((5, 0, 9))
    runs.advance(rule, 8)
    students = runs.students()
    runs.close()
    for seed, student in zip((5, 0, 9), students, strict=True):
        alone = run.sibling()
        alone.reset(seed)
        alone.advance(rule, 8)
        for one, other in zip(student.parameters(), alone.student.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_credits_see_the_gradients_that_the_update_is_made_with(make_run: MakeRun) -> None:
    run = make_run(equal_gradients=True, batch_size=16)
    run.reset(0)
    calibrator = CALIBRATORS["gradient"](run, 4.0)
    change = calibrator.logit_gradient_change(run, Temperature.shared(torch.linspace(0.5, 9.0, 16)))
    actual, reference = [], []
    for values, kept in ((torch.linspace(0.5, 9.0, 16), actual), (torch.full((16,), 4.0), reference)):
        logits = run.outputs.student_logits.detach().requires_grad_(True)
        kept.append(gradients(run.method, run.outputs.with_student_logits(logits), Temperature.shared(values), True))
    direction = reference[0] / reference[0].norm(dim=-1, keepdim=True)
    expected = actual[0] - direction * actual[0].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)
