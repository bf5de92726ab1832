"""Localization distillation against its formula in NumPy, and which detectors it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from small_detection import detection_outputs, random_maps, region_boxes
from small_detectors import detector
from small_networks import at_temperature
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import METHODS, create_method
from rlkd_env.methods.detection.ld import edge_loss

COUNT, BINS = 24, 8


def random_edges(count: int = COUNT) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3.0 * torch.randn(2, count, 4, BINS + 1, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def outputs_with_edges() -> InstanceOutputs:
    outputs = detection_outputs(random_maps(COUNT // 2, 4), random_maps(COUNT // 2, 4))
    student, teacher = random_edges()
    return replace(outputs, boxes=replace(region_boxes(COUNT), student_edges=student, teacher_edges=teacher))


def temperatures(count: int = COUNT) -> Temperature:
    return Temperature(torch.linspace(0.5, 3.0, count).double(), torch.linspace(2.0, 1.0, count).double())


@pytest.mark.parametrize("multiple", [1.0, 5.0])
def test_the_term_of_an_object_is_the_mean_over_its_edges_at_its_own_temperatures(multiple: float) -> None:
    outputs, temperature = outputs_with_edges(), temperatures()
    found = create_method("ld", ld_weight=0.5, edge_multiple=multiple)(outputs, temperature)
    assert 0 < int((outputs.labels == 0).sum()) < COUNT
    for i in range(COUNT):
        student, teacher = (multiple * float(values[i]) for values in (temperature.student, temperature.teacher))
        p = softmax(outputs.boxes.teacher_edges[i].numpy() / teacher, axis=-1)
        q = softmax(outputs.boxes.student_edges[i].detach().numpy() / student, axis=-1)
        expected = 0.5 * student * teacher * np.mean(rel_entr(p, q).sum(axis=-1)) * (int(outputs.labels[i]) > 0)
        assert found["ld"][i].item() == pytest.approx(expected, rel=1e-9)
    kd = create_method("kd", task_weight=1.0, kd_weight=1.0)(outputs, temperature)
    for name, value in kd.items():
        torch.testing.assert_close(found[name], value)


def test_a_regions_temperature_changes_its_own_terms_alone() -> None:
    outputs, method = outputs_with_edges(), create_method("ld")
    at = int((outputs.labels > 0).nonzero()[0])
    other = temperatures()
    other.teacher[at] *= 2.0
    before, after = (method.logit_losses(outputs, chosen) for chosen in (temperatures(), other))
    assert list(before) == ["kd", "ld"]
    for name, value in before.items():
        assert (value != after[name]).nonzero().flatten().tolist() == [at]


def test_gradcheck() -> None:
    student, teacher = random_edges(3)
    assert torch.autograd.gradcheck(lambda given: edge_loss(given, teacher, temperatures(3)), student)


def test_a_factor_of_the_temperatures_own_grows_with_the_multiple() -> None:
    student, teacher = random_edges(3)
    two = torch.full((3,), 2.0).double()
    found = edge_loss(student, teacher, Temperature(two, two, 4 * torch.ones(3).double()).times(5.0))
    torch.testing.assert_close(found, edge_loss(student, teacher, Temperature.shared(10.0 * torch.ones(3).double())))
    plain = edge_loss(student, teacher, Temperature.shared(two), temperature_squared=False)
    torch.testing.assert_close(4.0 * plain, edge_loss(student, teacher, Temperature.shared(two)))


def test_without_kd_temperatures_still_matter_and_a_composition_has_each_term_once() -> None:
    outputs = outputs_with_edges()
    alone = create_method("ld", kd_weight=0.0)
    assert alone.uses_temperature
    assert list(alone(outputs, temperatures())) == ["task", "ld"]
    composed = create_method("kd+ld+box")
    assert composed.uses_temperature
    assert list(composed(outputs, temperatures())) == ["task", "kd", "ld", "box"]


def test_equal_gradients_are_equal_over_the_logits_of_classes_and_edges() -> None:
    outputs, method = outputs_with_edges(), create_method("ld")
    method.equal_gradients = True
    losses = method(outputs, temperatures())
    inputs = outputs.logits_of_student
    gradients = torch.autograd.grad(losses["kd"].sum() + losses["ld"].sum(), inputs)
    norms = torch.cat([gradient.flatten(start_dim=1) for gradient in gradients], dim=1).norm(dim=1)
    torch.testing.assert_close(norms, norms.mean().expand(COUNT))


def test_both_detectors_need_the_same_bins() -> None:
    bins, others, numbers = detector(box_bins=8), detector(box_bins=4), detector()
    for name in ("ld", "kd+ld"):
        method = create_method(name)
        method.check_networks(bins, bins)
        for student, teacher in ((bins, others), (bins, numbers), (numbers, numbers)):
            with pytest.raises(UsageError, match="'ld' compares distributions of the edges of boxes: give both"):
                method.check_networks(student, teacher)
    box = create_method("box")
    for both in ((bins, others), (numbers, numbers)):
        box.check_networks(*both)
    with pytest.raises(UsageError, match="'box' compares boxes in one code"):
        box.check_networks(bins, numbers)


def test_it_is_for_detectors_with_edges_alone() -> None:
    assert METHODS["ld"].tasks == ("detection",)
    outputs = replace(outputs_with_edges(), boxes=region_boxes(COUNT))
    with pytest.raises(ValueError, match="detectors that give distributions of edges"):
        create_method("ld")(outputs, at_temperature(COUNT))
