"""Every method in a run: what trains, what does not, snapshots, and what they have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import (
    FlatNetwork,
    SmallNetwork,
    at_temperature,
    digits_run,
    for_method,
    frozen_teacher,
    pair_of,
    real_outputs,
)
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import METHODS, check_method, create_method, kd_loss
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers.exploration import explore

FOR_IMAGES = {name: method for name, method in METHODS.items() if "classification" in method.tasks}
ADDITIONS = [name for name, method in FOR_IMAGES.items() if method.is_addition]
ALONE = [name for name in FOR_IMAGES if name not in (*ADDITIONS, "kd", "cross_entropy")]
COMPOSED = "dkd+fitnet+rkd"
OPTIONS = {"crd": {"negatives": 64}}


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def networks_for(name: str) -> tuple[nn.Module, nn.Module]:
    """A student as the method trains it, and a teacher."""
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    return for_method(name, student, teacher), teacher


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALONE, *ADDITIONS, COMPOSED])
def test_in_50_updates_every_trained_tensor_moves_and_the_teacher_does_not(name: str) -> None:
    run = digits_run(name, **OPTIONS.get(name, {}))
    before = {name: value.clone() for name, value in run.method.named_parameters()}
    student = {name: value.clone() for name, value in run.student.named_parameters()}
    teacher = {name: value.clone() for name, value in run.teacher.state_dict().items()}
    for _ in range(50):
        result = run.step(at_temperature(64))
        assert not result.diverged
    for name, value in run.method.named_parameters():
        assert not torch.equal(value, before[name]), name
    for name, value in run.student.named_parameters():
        assert not torch.equal(value, student[name]), name
    assert_same(run.teacher.state_dict(), teacher)
    assert all(parameter.grad is None for parameter in run.teacher.parameters())


@pytest.mark.parametrize("name", ["fitnet", "ofd", "reviewkd", "vid", "srrl", "crd", "cc", "adain", COMPOSED])
def test_methods_with_adapters_have_parameters(name: str) -> None:
    assert list(digits_run(name, **OPTIONS.get(name, {})).method.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALONE, *ADDITIONS, COMPOSED])
@pytest.mark.parametrize("steps_before", [0, 1, 6])
def test_a_restored_run_goes_on_bit_for_bit(name: str, steps_before: int) -> None:
    run = digits_run(name, **OPTIONS.get(name, {}))
    for _ in range(steps_before):
        run.step(at_temperature(64))
    fork, state = run.fork(), run.state_dict()
    restored = digits_run(name, **OPTIONS.get(name, {}))
    restored.step(at_temperature(64, 1.0))
    restored.load_state_dict(state)
    for _ in range(6):
        losses = [each.step(at_temperature(64)).metrics for each in (run, fork, restored)]
        assert_same(losses[0], losses[1])
        assert_same(losses[0], losses[2])
    for other in (fork, restored):
        assert_same(run.method.state_dict(), other.method.state_dict())
        assert_same(run.student.state_dict(), other.student.state_dict())


def test_the_memories_of_crd_are_in_the_runs_state_and_move_in_step_with_it() -> None:
    run = digits_run("crd", negatives=64)
    before = run.state_dict()["method"]
    assert before["student_memory.embeddings"].shape == (300, 128)
    indices = run.outputs.indices
    run.step(at_temperature(64))
    after = run.state_dict()["method"]
    for side in ("student", "teacher"):
        assert before[f"{side}_memory.log_normalizer"].isinf()
        assert after[f"{side}_memory.log_normalizer"].isfinite()
        moved = (before[f"{side}_memory.embeddings"] != after[f"{side}_memory.embeddings"]).any(dim=1)
        assert torch.equal(moved.nonzero()[:, 0], indices.sort().values)
    fixed = after["student_memory.log_normalizer"]
    run.step(at_temperature(64))
    assert torch.equal(run.method.student_memory.log_normalizer, fixed)


@pytest.mark.parametrize("name", ADDITIONS)
def test_the_teacher_is_no_part_of_the_methods_state(name: str) -> None:
    student, teacher = networks_for(name)
    method = create_method(name, pair_of(student, teacher), **OPTIONS.get(name, {}))
    own = {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not own & {value.data_ptr() for value in (*method.parameters(), *method.buffers())}
    assert not any(module in set(teacher.modules()) for module in method.modules())


@pytest.mark.parametrize("name", ADDITIONS)
def test_temperatures_change_the_kd_term_alone_and_without_it_nothing(name: str) -> None:
    student, teacher = networks_for(name)
    pair, outputs = pair_of(student, teacher), real_outputs(8, student, teacher)
    method = create_method(name, pair, **OPTIONS.get(name, {}))
    torch.manual_seed(0)
    hot = method(outputs, at_temperature(8, 20.0))
    torch.manual_seed(0)
    cold = method(outputs, at_temperature(8, 0.5))
    assert {part for part in hot if not torch.equal(hot[part], cold[part])} == {"kd"}
    assert all(value.shape == (8,) for value in hot.values())
    without = create_method(name, pair, kd_weight=0.0, **OPTIONS.get(name, {}))
    assert without.logit_losses(outputs, at_temperature(8)) == {}
    assert "kd" not in without(outputs, at_temperature(8))


@pytest.mark.parametrize("name", ["dkd", "dist", *ADDITIONS])
def test_equal_temperatures_reproduce_the_loss_of_one_temperature(name: str) -> None:
    """A scalar outside the method: logits divided by 4, losses multiplied by 16."""
    student, teacher = networks_for(name)
    outputs = real_outputs(8, student, teacher)
    method = create_method(name, pair_of(student, teacher), **OPTIONS.get(name, {}))
    scaled = InstanceOutputs(outputs.student_logits / 4.0, outputs.teacher_logits / 4.0, outputs.labels)
    parts, of_scaled = (
        method.logit_losses(outputs, at_temperature(8)),
        method.logit_losses(scaled, at_temperature(8, 1.0)),
    )
    for part, value in parts.items():
        torch.testing.assert_close(value, 16.0 * of_scaled[part])


@pytest.mark.parametrize("name", [*ALONE, *ADDITIONS])
def test_extreme_logits_give_no_nan(name: str) -> None:
    student, teacher = networks_for(name)
    method = create_method(name, pair_of(student, teacher), **OPTIONS.get(name, {}))
    outputs = real_outputs(4, student, teacher, two_views=method.needs_second_view)
    logits = (1e4 * outputs.student_logits.detach().sign()).requires_grad_(True)
    outputs = replace(outputs, student_logits=logits, teacher_logits=-logits.detach())
    parts = method(outputs, at_temperature(4, 0.5))
    sum(parts.values()).sum().backward()
    assert all(part.isfinite().all() for part in parts.values())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in student.parameters())


@pytest.mark.parametrize("name", [*ALONE, *ADDITIONS])
def test_mixed_images_are_distilled(name: str) -> None:
    run = digits_run(name, **OPTIONS.get(name, {}))
    explore(run, Exploration(first_epoch=2))
    run.reset(0)
    mixed = 0.0
    for _ in range(12):
        result = run.step(at_temperature(64))
        mixed += float(result.metrics["mixed_share"])
        assert not result.diverged
    assert mixed > 0


@pytest.mark.parametrize("name", [*ALONE, *ADDITIONS])
def test_unknown_options_are_refused_with_the_valid_names(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown option of method {name!r} 'weigth'.*task_weight"):
        check_method(name, {"weigth": 1.0})


@pytest.mark.parametrize("name", ADDITIONS)
def test_features_are_needed(name: str) -> None:
    pair = pair_of(*networks_for(name))
    outputs = InstanceOutputs(torch.zeros(4, 10), torch.zeros(4, 10), torch.arange(4), indices=torch.arange(4))
    with pytest.raises(ValueError, match="needs outputs with features"):
        create_method(name, pair, **OPTIONS.get(name, {}))(outputs, at_temperature(4))
    with pytest.raises(ValueError, match="give it a Pair"):
        create_method(name)


@pytest.mark.parametrize("name", ["pkt", "rkd", "cc", "crd", "srrl"])
def test_pooled_features_are_enough_where_no_map_is_compared(name: str) -> None:
    student, teacher = FlatNetwork(), frozen_teacher()
    outputs = real_outputs(6, student, teacher)
    parts = create_method(name, pair_of(student, teacher), **OPTIONS.get(name, {}))(outputs, at_temperature(6))
    temperature = Temperature.shared(torch.full((6,), 4.0))
    expected = 0.9 * kd_loss(outputs.student_logits, outputs.teacher_logits, temperature)
    torch.testing.assert_close(parts["kd"], expected)
