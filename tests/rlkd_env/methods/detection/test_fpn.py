"""FPN imitation against its definition, written out in float64 with NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detection import SIZES, detection_outputs, pair_with_maps, quarters_run, random_maps
from small_networks import at_temperature, frozen_teacher, pair_of
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.methods import FPN, METHODS, create_method


def adapted(adapter: nn.Module, maps: Tensor) -> np.ndarray:
    if isinstance(adapter, nn.Identity):
        return maps.numpy()
    weight, bias = adapter.weight.detach().numpy()[:, :, 0, 0], adapter.bias.detach().numpy()
    return np.stack([np.tensordot(weight, image, axes=1) + bias[:, None, None] for image in maps.numpy()])


@pytest.mark.parametrize(("student_width", "teacher_width"), [(6, 8), (8, 8)])
def test_imitation_equals_its_definition_for_every_proposal(student_width: int, teacher_width: int) -> None:
    torch.manual_seed(0)
    method = create_method("fpn", pair_with_maps(student_width, teacher_width), feature_weight=2.0).double()
    student, teacher = random_maps(3, student_width), random_maps(3, teacher_width, seed=1)
    expected = np.zeros(3)
    for adapter, s, t in zip(method.adapters, student, teacher, strict=True):
        difference = adapted(adapter, s) - t.numpy()
        expected += [np.mean(image**2) for image in difference]
    loss = method.feature_losses(detection_outputs(student, teacher, proposals=2))["fpn"]
    np.testing.assert_allclose(loss.detach(), 2.0 * expected.repeat(2), rtol=1e-9)


@pytest.mark.parametrize(("student_width", "teacher_width"), [(6, 8), (8, 8)])
def test_the_normalized_form_is_1_minus_pearsons_correlation(student_width: int, teacher_width: int) -> None:
    torch.manual_seed(0)
    method = create_method("fpn", pair_with_maps(student_width, teacher_width), normalized=True).double()
    student, teacher = random_maps(3, student_width), random_maps(3, teacher_width, seed=1)
    expected = 0.0
    for adapter, s, t in zip(method.adapters, student, teacher, strict=True):
        assert isinstance(adapter, nn.Identity) == (student_width == teacher_width)
        s = adapted(adapter, s)
        channels = [np.corrcoef(s[:, c].ravel(), t.numpy()[:, c].ravel())[0, 1] for c in range(teacher_width)]
        expected += 1.0 - np.mean(channels)
    loss = method.feature_losses(detection_outputs(student, teacher))["fpn"]
    assert loss.mean().item() == pytest.approx(expected, abs=1e-4)


def test_the_normalized_form_leaves_size_and_mean_of_the_students_channels_free() -> None:
    method = create_method("fpn", pair_with_maps(8, 8), normalized=True)
    student, teacher = random_maps(3, 8), random_maps(3, 8, seed=1)
    scaled = tuple(5.0 * maps + 2.0 for maps in student)
    losses = [method.feature_losses(detection_outputs(maps, teacher))["fpn"] for maps in (student, scaled)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    assert method.feature_losses(detection_outputs(teacher, teacher))["fpn"].abs().max() < 1e-12


@pytest.mark.parametrize("normalized", [False, True])
def test_gradcheck_and_dead_channels(normalized: bool) -> None:
    torch.manual_seed(0)
    method = create_method("fpn", pair_with_maps(2, 2), normalized=normalized).double()
    student, teacher = random_maps(2, 2), random_maps(2, 2, seed=1)

    def loss(first: Tensor) -> Tensor:
        return method.feature_losses(detection_outputs((first, student[1]), teacher))["fpn"]

    assert torch.autograd.gradcheck(loss, student[0].requires_grad_())
    dead = torch.zeros_like(student[0], requires_grad=True)
    value = loss(dead).sum()
    value.backward()
    assert value.isfinite()
    assert dead.grad.isfinite().all()


def test_pyramids_of_different_height_meet_where_they_are_of_the_same_size() -> None:
    method = create_method("fpn", pair_with_maps(4, 8, ((8, 12), (4, 6), (2, 3)), ((4, 6), (2, 3), (1, 1))))
    assert method.levels == [(1, 0), (2, 1)]
    method = create_method("fpn", pair_with_maps(4, 8, ((2, 3), (2, 3)), ((4, 6), (2, 3))))
    assert method.levels == [(1, 1)]
    with pytest.raises(UsageError, match="maps of the same size, and of those student and teacher have none"):
        create_method("fpn", pair_with_maps(4, 8, ((8, 12),), SIZES))


@pytest.mark.parametrize("name", ["fpn", "icd"])
def test_networks_that_classify_images_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"method '{name}' compares detectors: choose a data set with boxes"):
        create_method(name, pair_of(frozen_teacher(), frozen_teacher()))


@pytest.mark.parametrize("name", ["fpn", "icd"])
def test_the_method_is_for_detectors_alone(name: str) -> None:
    assert METHODS[name].tasks == ("detection",)


@pytest.mark.parametrize("name", ["fpn", "icd"])
def test_outputs_without_regions_or_features_are_refused(name: str) -> None:
    method = create_method(name, pair_with_maps(8, 16)).double()
    outputs = detection_outputs(random_maps(3, 8), random_maps(3, 16))
    outputs = replace(outputs, regions=None)
    with pytest.raises(ValueError, match="whose instances are regions of images"):
        method.feature_losses(outputs)
    outputs = replace(outputs, student_features=None)
    with pytest.raises(ValueError, match="needs outputs with features"):
        method.feature_losses(outputs)


@pytest.mark.parametrize("name", ["fpn", "icd"])
def test_temperatures_change_the_kd_term_alone(name: str) -> None:
    method = create_method(name, pair_with_maps(8, 16)).double()
    outputs = detection_outputs(random_maps(3, 8), random_maps(3, 16))
    parts = []
    for value in (20.0, 0.5):
        torch.manual_seed(0)
        parts.append(method(outputs, at_temperature(6, value)))
    assert {part for part in parts[0] if not torch.equal(parts[0][part], parts[1][part])} == {"kd"}
    assert all(value.shape == (6,) for value in parts[0].values())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"normalized": True}])
def test_in_a_run_the_students_maps_come_nearer(options: dict[str, bool]) -> None:
    run = quarters_run("fpn", kd_weight=0.0, **options)
    assert isinstance(run.method, FPN)
    losses = [float(run.step(at_temperature(256)).metrics["loss_fpn"]) for _ in range(60)]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
