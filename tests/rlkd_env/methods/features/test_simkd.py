"""SimKD against its definition, written out in float64: the projected map, its loss, and the reused classifier."""

from __future__ import annotations

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
from torch import Tensor, nn

from rlkd_env.credit.first_order import LastLayer
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods import change_of_student, create_method, kd_loss
from rlkd_env.models.taps.features import Taps, forward_with_features
from rlkd_env.runs.parallel import create_parallel_runs


def pooled(maps: Tensor, size: int) -> Tensor:
    """Average pooling of square maps by an equal number of pixels, written out."""
    pixels = maps.shape[-1] // size
    return maps.reshape(*maps.shape[:2], size, pixels, size, pixels).mean(dim=(3, 5))


def norm_and_relu(maps: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm by the statistics of the batch, and ReLU."""
    variance, mean = torch.var_mean(maps, dim=(0, 2, 3), keepdim=True, correction=0)
    scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    return ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)


def projected(maps: Tensor, projector: nn.Module) -> Tensor:
    """The three convolutions as sums over channels and neighbours."""
    first, norm1, _, second, norm2, _, third, norm3, _ = (
        layer for layer in projector if not isinstance(layer, nn.AdaptiveAvgPool2d)
    )
    maps = norm_and_relu(torch.einsum("oi,nihw->nohw", first.weight[:, :, 0, 0], maps), norm1)
    padded, size = nn.functional.pad(maps, (1, 1, 1, 1)), maps.shape[-1]
    neighbours = torch.stack(
        [padded[:, :, y : y + size, x : x + size] for y in range(3) for x in range(3)], dim=-1
    ).unflatten(-1, (3, 3))
    maps = norm_and_relu(torch.einsum("oiyx,nihwyx->nohw", second.weight, neighbours), norm2)
    return norm_and_relu(torch.einsum("oi,nihw->nohw", third.weight[:, :, 0, 0], maps), norm3)


@pytest.mark.parametrize("widths", [(4,), (4, 5), (4, 5, 6)], ids=["larger map", "equal map", "smaller map"])
@pytest.mark.parametrize("factor", [1, 3])
def test_simkd_equals_its_definition_with_its_gradient(widths: tuple[int, ...], factor: int) -> None:
    torch.manual_seed(0)
    teacher, plain = frozen_teacher(), SmallNetwork(widths)
    stages = [nn.Sequential(*stage) for stage in plain.stages]  # the very modules, before the student is changed
    change = change_of_student("simkd", pair_of(plain, teacher), factor=factor)
    assert change is not None
    student = change(plain).double()
    method = create_method("simkd", pair_of(student.float(), teacher), feature_weight=2.0, factor=factor)
    student, teacher = student.double(), teacher.double()
    images = torch.randn(7, 1, 8, 8, dtype=torch.float64)
    logits, features = forward_with_features(student, images)
    teacher_logits, of_teacher = forward_with_features(teacher, images)
    labels = torch.arange(7)
    outputs = InstanceOutputs(
        logits, teacher_logits, labels, images=images, student_features=features, teacher_features=of_teacher
    )
    found = method(outputs, at_temperature(7))

    maps, target = images, of_teacher.stages[-1]
    for stage in stages:
        maps = stage(maps)
    if maps.shape[-1] > target.shape[-1]:
        maps = pooled(maps, target.shape[-1])
    elif maps.shape[-1] < target.shape[-1]:
        target = pooled(target, maps.shape[-1])
    maps = projected(maps, student.stages[-1][1])
    expected = 2.0 * (maps - target).pow(2).flatten(1).mean(dim=1)
    judged = maps.mean(dim=(2, 3)) @ teacher.classifier.weight.T + teacher.classifier.bias
    tolerance = {"rtol": 1e-6, "atol": 1e-9}
    torch.testing.assert_close(found["simkd"], expected, **tolerance)
    torch.testing.assert_close(logits, judged, **tolerance)
    by_hand = {
        "task": 0.1 * nn.functional.cross_entropy(judged, labels, reduction="none"),
        "kd": 0.9 * kd_loss(judged, teacher_logits, at_temperature(7)),
        "simkd": expected,
    }
    parameters = list(student.parameters())
    gradients = [
        torch.autograd.grad(sum(parts.values()).mean(), parameters, retain_graph=True) for parts in (found, by_hand)
    ]
    for name, left, right in zip(dict(student.named_parameters()), *gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9, msg=name)


def test_the_classifier_is_the_teachers_and_stays_so() -> None:
    run = digits_run("simkd")
    for _ in range(8):
        run.step(at_temperature(64))
    assert not list(run.method.parameters())
    assert "classifier.weight" not in dict(run.student.named_parameters())
    assert torch.equal(run.student.classifier.weight, run.teacher.classifier.weight)
    assert torch.equal(run.student.classifier.bias, run.teacher.classifier.bias)
    assert run.student.classifier.weight.data_ptr() != run.teacher.classifier.weight.data_ptr()


def test_students_of_one_seed_start_as_the_plain_ones_do() -> None:
    plain, changed = digits_run("kd").student, digits_run("simkd").student
    torch.testing.assert_close(changed.stages[0].state_dict(), plain.stages[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(changed.stages[1][0].state_dict(), plain.stages[1].state_dict(), rtol=0, atol=0)


def test_as_published_labels_and_temperatures_change_nothing() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    for_method("simkd", student, teacher)
    method = create_method("simkd", pair_of(student, teacher), task_weight=0.0, kd_weight=0.0)
    assert not method.uses_temperature
    parts = method(real_outputs(5, student, teacher), at_temperature(5))
    assert parts.keys() == {"task", "simkd"}
    assert not parts["task"].any()


class ConvolutionalHead(nn.Module):
    """A network whose classifier is a 1x1 convolution that is pooled afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.classifier = nn.Conv2d(1, 8, 3, stride=2), nn.Conv2d(8, 10, 1)
        self.taps = Taps(("stage",), (), "classifier")

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stage(images)).mean(dim=(2, 3))


class FlattenedMap(nn.Module):
    """A network whose classifier reads every position of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.classifier = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(36, 10)
        self.taps = Taps(("stage",), (), "classifier")

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stage(images).flatten(1))


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        (
            SmallNetwork((4, 5)),
            ConvolutionalHead(),
            {},
            "reuses the teacher's classifier, .*no linear layer but a Conv2d",
        ),
        (SmallNetwork((4, 5)), FlattenedMap(), {}, "does not read the mean of the teacher's last map: choose another"),
        (SmallNetwork((4, 5)), FlatNetwork(), {}, "does not read the mean of the teacher's last map"),
        (FlatNetwork(), frozen_teacher(), {}, "'simkd' needs networks with feature maps; the student has none"),
        (FlattenedMap(), frozen_teacher(), {}, "FlattenedMap does not take the mean of its last map"),
        (ConvolutionalHead(), frozen_teacher(), {}, "classifier of the network ConvolutionalHead is no linear layer"),
        (SmallNetwork((4, 5)), frozen_teacher(), {"factor": 9}, "a factor of 9 leaves none of 8 channels"),
        (SmallNetwork((4, 5)), frozen_teacher(), {"factor": 0}, "factor must be at least 1"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    student: nn.Module, teacher: nn.Module, options: dict, message: str
) -> None:
    def change_it() -> nn.Module:
        change = change_of_student("simkd", pair_of(student, teacher), **options)
        assert change is not None
        return change(student)

    with pytest.raises(UsageError, match=message):
        change_it()


def test_a_student_that_was_not_changed_is_refused() -> None:
    student, teacher = SmallNetwork((4, 8)), frozen_teacher()
    method = create_method("simkd", pair_of(student, teacher))
    with pytest.raises(UsageError, match="change it before"):
        method(real_outputs(4, student, teacher), at_temperature(4))


def test_only_one_method_of_several_changes_the_student_and_the_others_see_it() -> None:
    run = digits_run("simkd+rkd", **{"simkd.factor": 4})
    assert run.student.stages[1][1][0].out_channels == 2
    assert run.method.parts[0].factor == 4
    assert {"loss_simkd", "loss_rkd_distance"} <= run.step(at_temperature(64)).metrics.keys()
    assert run.student_options == {"reused_classifier": {"width": 8, "factor": 4, "size": None}}


def test_several_students_take_turns() -> None:
    run = digits_run("simkd")
    with pytest.raises(UsageError, match="SimKD compares features"):
        create_parallel_runs(run.sibling(), 2, "stacked")
    assert create_parallel_runs(run.sibling(), 2).mode != "stacked"


def test_the_calibrator_of_the_last_layer_is_refused_because_that_does_not_learn() -> None:
    run = digits_run("simkd")
    with pytest.raises(UsageError, match="which the method does not train"):
        LastLayer(run).before_update(run, at_temperature(64))
