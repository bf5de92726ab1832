"""What outputs compute once, and how they are mapped and joined."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from random_logits import two_views

from rlkd_env.instances.outputs import InstanceOutputs, log_softmax


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_tasks_loss_is_that_of_both_views_and_all_else_of_the_first(smoothing: float) -> None:
    outputs = replace(two_views(6, 4), label_smoothing=smoothing)
    first = replace(outputs, second_student_logits=None, second_teacher_logits=None)
    second = outputs.second_view()
    labels = outputs.labels
    for view, logits in ((first, outputs.student_logits), (second, outputs.second_student_logits)):
        expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(view.task_loss, expected)
    torch.testing.assert_close(outputs.task_loss, first.task_loss + second.task_loss)
    assert torch.equal(outputs.student_cross_entropy, first.student_cross_entropy)
    assert torch.equal(second.teacher_logits, outputs.second_teacher_logits)
    assert second.second_student_logits is None
    halved = outputs.map(lambda values: values[:3])
    torch.testing.assert_close(halved.task_loss, outputs.task_loss[:3])


def mixed_outputs(first: int) -> InstanceOutputs:
    """Three instances of three classes, mixed, with what belongs to whole images."""
    logits = torch.arange(9.0).view(3, 3) + first
    return InstanceOutputs(
        logits.clone().requires_grad_(),
        -logits,
        torch.arange(3),
        progress=0.5,
        indices=torch.arange(3) + first,
        partner_labels=torch.tensor([1, 2, 0]),
        label_share=torch.tensor([1.0, 0.75, 0.5]),
        epoch=2.5,
        step=7,
        images=torch.zeros(3, 1, 2, 2),
        further_loss=torch.ones(3),
    )


def test_outputs_cannot_be_changed() -> None:
    outputs = mixed_outputs(0)
    with pytest.raises(FrozenInstanceError):
        outputs.progress = 1.0  # type: ignore[misc]


def test_a_map_takes_every_tensor_with_a_row_an_instance() -> None:
    outputs = mixed_outputs(0)
    taken = outputs.map(lambda values: values[1:])
    assert torch.equal(taken.student_logits, outputs.student_logits[1:])
    assert taken.student_logits.requires_grad
    for name in ("teacher_logits", "labels", "indices", "partner_labels", "label_share", "further_loss"):
        assert torch.equal(getattr(taken, name), getattr(outputs, name)[1:]), name
    assert (taken.progress, taken.epoch, taken.step, taken.images, taken.regions) == (0.5, 2.5, 7, None, None)
    torch.testing.assert_close(taken.task_loss, outputs.task_loss[1:])
    plain = InstanceOutputs(outputs.student_logits, outputs.teacher_logits, outputs.labels)
    assert plain.map(torch.clone).indices is None


def test_joined_outputs_stand_one_after_the_other() -> None:
    parts = [mixed_outputs(0), mixed_outputs(10)]
    joined = InstanceOutputs.join(parts)
    assert joined.num_runs == 2
    assert joined.indices.tolist() == [0, 1, 2, 10, 11, 12]
    assert not joined.student_logits.requires_grad
    for run, part in enumerate(parts):
        assert torch.equal(joined.by_run(joined.student_logits)[run], part.student_logits)
        assert torch.equal(joined.by_run(joined.task_loss)[run], part.task_loss)
    assert (joined.progress, joined.epoch, joined.step, joined.images) == (0.5, 2.5, 7, None)
    assert InstanceOutputs.join([joined, joined]).num_runs == 4


def test_what_there_is_once_a_batch_is_repeated_for_every_student_that_shares_it() -> None:
    students = [mixed_outputs(first) for first in (0, 3)]
    alone = students[0]
    logits = torch.cat([student.student_logits for student in students])
    found = alone.with_student_logits(logits).of_every_run()
    assert found.student_logits is logits
    for name in ("teacher_logits", "labels", "indices", "partner_labels", "label_share"):
        assert torch.equal(getattr(found, name), torch.cat([getattr(alone, name)] * 2))
    assert alone.of_every_run() is alone
