"""Instance-conditional distillation: its loss against the definition, who learns from what, odd images, and runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_detection import boxes_of, detection_outputs, pair_with_maps, quarters_run, random_maps, some_boxes
from small_networks import at_temperature
from torch import Tensor

from rlkd_env.data.boxes import Boxes
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods import ICD, create_method
from rlkd_env.methods.detection.icd.method import masked_imitation_loss

STUDENT, TEACHER = 6, 16
TERMS = {"icd", "icd_identification", "icd_offsets"}


def method_in_float64(**options: float) -> ICD:
    torch.manual_seed(0)
    return create_method("icd", pair_with_maps(STUDENT, TEACHER), **options).double()


def outputs_of(boxes: Boxes, proposals: int = 2) -> InstanceOutputs:
    """With gradients to the student's maps."""
    student = tuple(maps.requires_grad_() for maps in random_maps(len(boxes), STUDENT))
    return detection_outputs(student, random_maps(len(boxes), TEACHER, seed=1), boxes, proposals)


def losses_of(method: ICD, outputs: InstanceOutputs, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return method.feature_losses(outputs)


def standardised(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + 1e-5) for value in values]


def test_the_imitation_equals_its_definition() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
    mask = torch.rand(3, 2, 5, dtype=torch.float64)
    mask[1] = 0.0
    found = masked_imitation_loss(student, teacher, mask)
    for image in range(3):
        total, weight = 0.0, 0.0
        for head in range(2):
            for position in range(5):
                s, t = (standardised(values[image, head, position].tolist()) for values in (student, teacher))
                m = mask[image, head, position].item()
                total += m * sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
                weight += m
        assert found[image].item() == pytest.approx(total / weight if weight else 0.0, rel=1e-9)


def test_an_images_losses_are_those_of_each_of_its_proposals() -> None:
    method, outputs = method_in_float64(), outputs_of(some_boxes(), proposals=4)
    parts = losses_of(method, outputs)
    assert parts.keys() == TERMS
    for values in parts.values():
        assert values.shape == (12,)
        assert torch.equal(values.view(3, 4), values.view(3, 4)[:, :1].expand(3, 4))
        assert values.view(3, 4)[1].eq(0).all()  # an image without boxes
        assert (values.view(3, 4)[[0, 2]] > 0).all()


def test_the_students_values_follow_under_the_decoders_mask() -> None:
    """The method's own term, put together from the tested parts, with the weight for one-stage detectors."""
    method, outputs = method_in_float64(feature_weight=8.0), outputs_of(some_boxes())
    seen = []
    method.decoder.register_forward_hook(lambda module, inputs, decoded: seen.append(decoded))
    found = losses_of(method, outputs)["icd"]
    maps = torch.cat([each.flatten(start_dim=2) for each in outputs.student_features.stages], dim=-1)
    values = method.student_values(maps.transpose(1, 2)).view(3, -1, 8, TEACHER // 8).transpose(1, 2)
    expected = 8.0 * masked_imitation_loss(values, seen[0].values, seen[0].mask)
    torch.testing.assert_close(found, expected.repeat_interleave(2))


def gradients(method: ICD, outputs: InstanceOutputs, term: str) -> tuple[set[str], bool]:
    """Parts of the method that a term's gradient reaches, and whether it reaches the student's maps."""
    method.zero_grad()
    student = outputs.student_features.stages
    for maps in student:
        maps.grad = None
    losses_of(method, outputs)[term].sum().backward()
    reached = {name.split(".")[0] for name, value in method.named_parameters() if value.grad is not None}
    return reached, any(maps.grad is not None and bool(maps.grad.any()) for maps in student)


def test_the_decoder_learns_from_its_own_losses_and_the_student_from_the_imitation_alone() -> None:
    method, outputs = method_in_float64(), outputs_of(some_boxes())
    assert gradients(method, outputs, "icd") == ({"student_values"}, True)
    assert gradients(method, outputs, "icd_identification") == ({"decoder"}, False)
    assert gradients(method, outputs, "icd_offsets") == ({"decoder"}, False)
    assert not any(maps.requires_grad for maps in outputs.teacher_features.stages)


def test_the_decoder_starts_before_the_student() -> None:
    method, outputs = method_in_float64(warmup_epochs=1.0), outputs_of(some_boxes())
    outputs = replace(outputs, epoch=0.5)
    assert gradients(method, outputs, "icd") == ({"student_values"}, False)
    assert gradients(method, outputs, "icd_identification") == ({"decoder"}, False)
    outputs = replace(outputs, epoch=1.0)
    assert gradients(method, outputs, "icd") == ({"student_values"}, True)


def test_the_size_of_the_students_values_is_free() -> None:
    method, outputs = method_in_float64(), outputs_of(some_boxes())
    before = losses_of(method, outputs)["icd"]
    with torch.no_grad():
        method.student_values.weight *= 5.0
        method.student_values.bias *= 5.0
    torch.testing.assert_close(losses_of(method, outputs)["icd"], before, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("boxes", "is_zero"),
    [
        (boxes_of([], []), True),
        (boxes_of([(0, 0, 48, 32, 2)], [], crowds=[(0, 0)]), True),
        (boxes_of([(3, 3, 4, 4, 1)], [(47, 31, 48, 32, 3)]), False),
        (boxes_of([(-9, -9, 70, 60, 1)], [(50, 40, 60, 50, 1)]), False),
    ],
    ids=["none", "crowds alone", "one pixel", "outside"],
)
def test_odd_boxes_give_finite_losses_and_gradients(boxes: Boxes, is_zero: bool) -> None:
    method, outputs = method_in_float64(), outputs_of(boxes)
    parts = losses_of(method, outputs)
    torch.stack(list(parts.values())).sum().backward()
    for values in parts.values():
        assert values.isfinite().all()
        assert (values == 0).all() == is_zero
    tensors = [*method.parameters(), *outputs.student_features.stages]
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in tensors)
    assert all(not tensor.grad.any() for tensor in tensors) == is_zero


@pytest.mark.slow
def test_gradcheck_in_the_students_maps() -> None:
    method, outputs = method_in_float64(), outputs_of(some_boxes())
    fine, coarse = outputs.student_features.stages

    def loss(maps: Tensor) -> Tensor:
        features = type(outputs.student_features)((fine.detach(), maps), (), torch.zeros(6, 5))
        return losses_of(method, replace(outputs, student_features=features))["icd"]

    assert torch.autograd.gradcheck(loss, coarse.detach().requires_grad_())


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (12, {}, "shares the 12 channels of the teacher's maps among 8 heads.*set heads"),
        (8, {}, "two a head at least"),
        (16, {"heads": 0}, "heads must be at least 1, not 0"),
        (16, {"decoder_learning_rate": 0.0}, "decoder learning rate must be positive, not 0"),
    ],
)
def test_what_does_not_fit_is_refused(teacher: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_method("icd", pair_with_maps(STUDENT, teacher), **options)


def test_in_a_run_the_decoder_moves_under_an_optimiser_of_its_own() -> None:
    """AdamW's first update is its learning rate in every entry that has a gradient, whatever the student's recipe."""
    run = quarters_run("icd", decoder_learning_rate=2e-3)
    optimization = run.update.optimization
    assert isinstance(optimization.further, torch.optim.AdamW)
    of_the_run = {id(parameter) for group in optimization.optimizer.param_groups for parameter in group["params"]}
    assert of_the_run == {id(parameter) for parameter in run.student.parameters()}
    before = {name: value.clone() for name, value in run.method.named_parameters()}
    result = run.step(at_temperature(256))
    assert {"loss_icd", "loss_icd_identification", "loss_icd_offsets", "loss_kd"} <= result.metrics.keys()
    for name, value in run.method.named_parameters():
        moved = (value.detach() - before[name]).abs().max()
        assert 0.5 * 2e-3 < moved < 1.1 * 2e-3, name
    teacher = {name: value.clone() for name, value in run.teacher.state_dict().items()}
    student = {name: value.clone() for name, value in run.student.named_parameters()}
    for _ in range(3):
        assert not run.step(at_temperature(256)).diverged
    assert all(torch.equal(value, teacher[name]) for name, value in run.teacher.state_dict().items())
    assert all(not torch.equal(value, student[name]) for name, value in run.student.named_parameters())


@pytest.mark.slow
def test_in_a_run_the_decoder_and_the_student_learn() -> None:
    run = quarters_run("icd", decoder_learning_rate=2e-3, kd_weight=0.0)
    metrics = [run.step(at_temperature(256)).metrics for _ in range(60)]
    for term in TERMS:
        curve = torch.stack([each[f"loss_{term}"] for each in metrics])
        assert curve[-8:].mean() < 0.9 * curve[:8].mean(), term


@pytest.mark.slow
@pytest.mark.parametrize("steps_before", [0, 6])
def test_a_restored_run_goes_on_bit_for_bit(steps_before: int) -> None:
    run = quarters_run("icd")
    for _ in range(steps_before):
        run.step(at_temperature(256))
    fork, state = run.fork(), run.state_dict()
    restored = quarters_run("icd")
    restored.step(at_temperature(256, 1.0))
    restored.load_state_dict(state)
    for _ in range(4):
        metrics = [each.step(at_temperature(256)).metrics for each in (run, fork, restored)]
        for name, value in metrics[0].items():
            assert torch.equal(value, metrics[1][name]), name
            assert torch.equal(value, metrics[2][name]), name
    for other in (fork, restored):
        for name, value in run.method.state_dict().items():
            assert torch.equal(value, other.method.state_dict()[name]), name
