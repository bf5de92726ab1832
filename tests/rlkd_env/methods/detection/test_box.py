"""Box regression that the teacher bounds, against its definition in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detection import detection_outputs, random_maps, region_boxes
from small_networks import at_temperature
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods import METHODS, create_method
from rlkd_env.methods.detection.box import bounded_loss

COUNT = 24


def outputs_with_boxes() -> InstanceOutputs:
    """Twelve images of two regions each, about a quarter of which are background."""
    outputs = detection_outputs(random_maps(COUNT // 2, 4), random_maps(COUNT // 2, 4))
    assert 0 < int((outputs.labels == 0).sum()) < COUNT
    return replace(outputs, boxes=region_boxes(COUNT))


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_an_error_counts_where_it_is_not_below_the_teachers_by_the_margin(margin: float) -> None:
    outputs = outputs_with_boxes()
    boxes = outputs.boxes
    found = create_method("box", box_weight=2.0, margin=margin)(outputs, at_temperature(COUNT))
    counted = 0
    for i in range(COUNT):
        student, teacher, target = (
            values[i].detach().numpy() for values in (boxes.student, boxes.teacher, boxes.targets)
        )
        own, bound = np.sum((student - target) ** 2), np.sum((teacher - target) ** 2)
        is_counted = int(outputs.labels[i]) > 0 and own + margin > bound
        counted += is_counted
        assert found["box"][i].item() == pytest.approx(2.0 * own * is_counted, rel=1e-9)
    assert 0 < counted < int((outputs.labels > 0).sum()), "some students are better than their teacher, some are not"
    expected = create_method("kd", task_weight=1.0, kd_weight=1.0)(outputs, at_temperature(COUNT))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_gradient_leads_to_the_real_box_or_there_is_none() -> None:
    boxes = region_boxes(COUNT)
    loss = bounded_loss(boxes.student, boxes.teacher, boxes.targets, 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), boxes.student)
    expected = torch.where((loss > 0).unsqueeze(-1), 2.0 * (boxes.student - boxes.targets), 0.0)
    torch.testing.assert_close(gradient, expected)
    inputs = (boxes.student.detach()[:4].requires_grad_(), boxes.teacher[:4], boxes.targets[:4], 0.0)
    assert torch.autograd.gradcheck(bounded_loss, inputs)


def test_the_background_has_no_gradient_however_large_its_targets_are() -> None:
    outputs = outputs_with_boxes()
    is_background = (outputs.labels == 0).unsqueeze(-1)
    boxes = replace(outputs.boxes, targets=torch.where(is_background, torch.inf, outputs.boxes.targets))
    loss = create_method("box").feature_losses(replace(outputs, boxes=boxes))["box"]
    (gradient,) = torch.autograd.grad(loss.sum(), boxes.student)
    assert loss.isfinite().all()
    assert torch.equal(gradient[outputs.labels == 0], torch.zeros_like(gradient[outputs.labels == 0]))
    assert gradient.isfinite().all()


def test_without_kd_temperatures_have_no_effect_and_a_composition_has_the_term_alone() -> None:
    outputs = outputs_with_boxes()
    method = create_method("box", kd_weight=0.0)
    assert not method.uses_temperature
    assert list(method(outputs, at_temperature(COUNT))) == ["task", "box"]
    composed = create_method("dkd+box", **{"box.box_weight": 3.0})(outputs, at_temperature(COUNT))
    assert list(composed) == ["task", "tckd", "nckd", "box"]
    torch.testing.assert_close(composed["box"], 6.0 * method(outputs, at_temperature(COUNT))["box"])


def test_it_is_for_detectors_alone() -> None:
    assert METHODS["box"].tasks == ("detection",)
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="needs outputs of detectors"):
        create_method("box").feature_losses(InstanceOutputs(logits, logits, torch.ones(2, dtype=torch.int64)))


def test_only_a_box_of_a_better_teacher_is_followed() -> None:
    target, near, far = torch.zeros(1, 4), torch.full((1, 4), 0.1), torch.full((1, 4), 1.0)
    losses: list[Tensor] = [bounded_loss(*boxes, target, 0.0) for boxes in ((near, far), (far, near))]
    assert [float(loss) for loss in losses] == [0.0, 4.0]
