"""The one update: that it waits for no device, and what it is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from methods import WITHOUT_WAITING
from small_networks import small_networks
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from agents.rules.create import RuleSetting, create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.recipe import Recipe
from rlkd_env.training.update import Optimization

MakeRun = Callable[..., DistillationRun]
WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::bincount",
    "aten::repeat_interleave.Tensor",
}
"""What makes a host wait for its device, or gives tensors of a size that the data decide."""


class NoWaiting(TorchDispatchMode):
    """Refuses every operation after which the host has to wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        assert name not in WAITING, f"{name} waits for the device"
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):
            chosen = [index.dtype for index in args[1] if index is not None]
            assert torch.bool not in chosen, f"{name} by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["item", "bool", "float", "mask", "nonzero"])
def test_what_waits_is_noticed(kind: str) -> None:
    values = torch.tensor([1.0, 2.0])
    waiting = {
        "item": lambda: values.sum().item(),
        "bool": lambda: bool(values.sum() > 1),
        "float": lambda: float(values.sum()),
        "mask": lambda: values[values > 1],
        "nonzero": lambda: values.nonzero(),
    }
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        waiting[kind]()


def updated_without_waiting(run: DistillationRun) -> None:
    """Make two updates as a run does, with batches and temperatures made beforehand."""
    run.reset(0)
    update, temperature = run.update, Temperature.shared(torch.linspace(1.0, 8.0, run.batch_size))
    for step in (1, 2):
        update.forward(run.batch, step)
        with NoWaiting():
            metrics = update.apply(temperature)
            update.forward(run.batch, step + 1)
            finite = update.is_finite()
        assert bool(finite)
        assert float(metrics["loss"]) > 0


@pytest.mark.parametrize(("method", "options"), WITHOUT_WAITING)
def test_the_update_waits_for_no_device(make_run: MakeRun, method: str, options: dict[str, Any]) -> None:
    updated_without_waiting(make_run(small_networks(method), method=method, method_options=options, batch_size=16))


def test_nor_do_batch_norms_equal_gradients_and_a_policy_that_learns_along(make_run: MakeRun) -> None:
    updated_without_waiting(make_run(student="cnn4", batch_size=16, equal_gradients=True))
    run = make_run(batch_size=16)
    run.create_policy = lambda seed: create_rule("ctkd", {}, RuleSetting(num_classes=10, seed=seed))
    run.reset(0)
    assert run.policy is not None
    temperature = run.policy(run.outputs)
    with NoWaiting():
        run.update.apply(temperature)


@pytest.mark.parametrize("reward", ["probe_loss", "log_probe_loss", "train_progress"])
def test_whole_steps_of_single_and_stacked_runs_wait_for_no_device(make_run: MakeRun, reward: str) -> None:
    run = make_run(reward=reward)
    runs = create_parallel_runs(run, 3, "stacked")
    for started, count in ((run.sibling(), 64), (runs, 192)):
        started.reset(0 if count == 64 else [0, 1, 2])  # type: ignore[arg-type]
        temperature = Temperature.shared(torch.linspace(1.0, 8.0, count))
        with NoWaiting():
            result = started.step(temperature)
        assert not result.diverged.any()


def test_the_losses_of_several_are_trained_as_each_alone() -> None:
    recipe = Recipe(2, 4, 0.1, 0.9, 0.0, "cosine")
    both, one = (torch.nn.Parameter(torch.tensor(values)) for values in ([1.0, 2.0], [2.0]))
    together, alone = Optimization(recipe, [both], 4), Optimization(recipe, [one], 4)
    for _ in range(3):
        together.backward(both**2)
        alone.backward((one**2).sum())
        assert together.learning_rate == alone.learning_rate
        together.step()
        alone.step()
    assert torch.equal(both[1:], one)


def test_optimizers_go_on_from_their_state() -> None:
    recipe = Recipe(2, 4, 0.1, 0.9, 0.0, "cosine")

    def trained(optimization: Optimization, parameter: torch.nn.Parameter, updates: int) -> None:
        for _ in range(updates):
            optimization.backward((parameter - 3.0) ** 2)
            optimization.step()

    parameter, further = (torch.nn.Parameter(torch.ones(())) for _ in range(2))
    first = Optimization(recipe, [parameter], 8, torch.optim.Adam([further]))
    trained(first, parameter, 2)
    other = torch.nn.Parameter(parameter.detach().clone())
    second = Optimization(recipe, [other], 8, torch.optim.Adam([further]))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.learning_rate == first.learning_rate
    trained(first, parameter, 3)
    trained(second, other, 3)
    assert torch.equal(parameter, other)


def with_batch_norm(run: DistillationRun) -> DistillationRun:
    """Give a run a student with running statistics."""
    run.create_student = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, 10))
    return run


def test_one_logit_that_is_not_finite_is_enough(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    assert bool(run.update.is_finite())
    for value in (torch.inf, torch.nan):
        logits = run.outputs.student_logits.detach().clone()
        logits[3, 2] = value
        run.update.outputs = replace(run.outputs, student_logits=logits)
        assert not bool(run.update.is_finite())


def test_outputs_know_how_far_the_run_is(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    for step in range(run.total_steps):
        outputs = run.outputs
        assert (float(outputs.progress), float(outputs.epoch)) == pytest.approx((step / 12, step / 4))
        assert outputs.epochs == 3.0
        run.step(Temperature.shared(torch.full((64,), 4.0)))


def test_a_batch_that_is_forwarded_again_moves_no_statistics(make_run: MakeRun) -> None:
    run = with_batch_norm(make_run())
    run.reset(0)
    run.step(Temperature.shared(torch.full((64,), 4.0)))
    before = {name: buffer.clone() for name, buffer in run.student.named_buffers()}
    with run.update.same_statistics():
        run.update.forward(run.batch, run.step_count)
    for name, buffer in run.student.named_buffers():
        assert torch.equal(buffer, before[name]), name
    run.update.forward(run.batch, run.step_count)
    assert not torch.equal(run.student[2].running_mean, before["2.running_mean"])


def test_the_average_of_the_weights_is_evaluated_and_kept_while_the_weights_are_trained(make_run: MakeRun) -> None:
    plain, averaged = make_run(student="digits_cnn"), make_run(student="digits_cnn", ema_decay=0.8)
    kept: dict[str, Tensor] = {}
    for run in (plain, averaged):
        run.reset(0)
    for _ in range(7):
        for run in (plain, averaged):
            run.step(Temperature.shared(torch.full((64,), 3.0)))
        for name, tensor in plain.student.state_dict().items():
            now = tensor.clone()
            kept[name] = 0.8 * kept[name] + 0.2 * now if name in kept and now.is_floating_point() else now
    for name, tensor in plain.student.state_dict().items():
        assert torch.equal(averaged.student.state_dict()[name], tensor), "the average takes no part in training"
        if tensor.is_floating_point() and "running" not in name:  # the batch that waits has moved these
            torch.testing.assert_close(averaged.weights()[name], kept[name])
    copied = averaged.create_student()
    copied.load_state_dict(averaged.weights())
    expected = averaged.task.evaluate(copied, averaged.splits.validation)
    assert torch.equal(averaged.evaluate_validation().loss, expected.loss)
    assert not torch.equal(plain.evaluate_validation().loss, expected.loss)


def test_a_state_with_an_average_needs_a_run_with_one(make_run: MakeRun) -> None:
    plain, averaged = make_run(), make_run(ema_decay=0.8)
    plain.reset(0)
    with pytest.raises(UsageError, match="needs a run with --ema-decay"):
        averaged.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("cached", [False, True])
def test_both_views_are_forwarded_one_after_the_other(make_run: MakeRun, cached: bool) -> None:
    """Batch norms see each view by itself, and kept logits of the teacher are those of the first view alone."""
    views = {"views": 1, "teacher_cache_mib": 64} if cached else {"teacher_cache_mib": 0}
    run = make_run(small_networks(), method="crld", precision="float32", memory_format="contiguous", **views)
    run.reset(0)
    outputs, batch, student = run.outputs, run.batch, run.create_student()
    student.load_state_dict(run.student.state_dict())
    student.train()
    assert int(run.student.stages[0][1].num_batches_tracked) == 2
    for images, student_logits, teacher_logits in (
        (batch.images, outputs.student_logits, outputs.teacher_logits),
        (batch.second_images, outputs.second_student_logits, outputs.second_teacher_logits),
    ):
        torch.testing.assert_close(student_logits, student(images))
        torch.testing.assert_close(teacher_logits, run.teacher(images), rtol=1e-4, atol=1e-5)
    assert (run.update.teacher.cache is not None) == cached
    assert run.update.teacher.cache is None or torch.equal(
        run.update.teacher.cache.logits(batch), outputs.teacher_logits
    )
