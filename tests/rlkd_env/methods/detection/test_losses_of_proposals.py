"""KD and DKD on region proposals against their formulas in float64: C + 1 classes, of which 0 is the background."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from small_detection import some_boxes

from rlkd_env.data.boxes import Regions
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method

PROPOSALS = 8
"""Of each of three images."""


def proposals(num_objects: int) -> tuple[InstanceOutputs, Temperature]:
    """As sampled by a detector: three quarters background; losses of boxes beside the classes; own temperatures."""
    count = 3 * PROPOSALS
    generator = torch.Generator().manual_seed(num_objects)
    student, teacher = 3.0 * torch.randn(2, count, num_objects + 1, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, num_objects + 1, (count,), generator=generator)
    labels[torch.arange(count) % 4 > 0] = 0
    uniform = torch.rand(4, count, generator=generator, dtype=torch.float64)
    outputs = InstanceOutputs(
        student.requires_grad_(),
        teacher,
        labels,
        further_loss=uniform[0].clone().requires_grad_(),
        regions=Regions(
            torch.zeros(count, 4), torch.arange(3).repeat_interleave(PROPOSALS), uniform[1], uniform[1], some_boxes()
        ),
    )
    return outputs, Temperature(teacher=0.5 + 9.5 * uniform[2], student=0.5 + 9.5 * uniform[3])


def as_numpy(outputs: InstanceOutputs, temperature: Temperature, at: int) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Probabilities of student and teacher at the proposal's temperatures, its class, and the factor."""
    student, teacher = temperature.student[at].item(), temperature.teacher[at].item()
    return (
        softmax(outputs.student_logits[at].detach().numpy() / student),
        softmax(outputs.teacher_logits[at].numpy() / teacher),
        int(outputs.labels[at]),
        student * teacher,
    )


def task_by_definition(outputs: InstanceOutputs, at: int) -> float:
    log_probabilities = log_softmax(outputs.student_logits[at].detach().numpy())
    return outputs.further_loss[at].item() - log_probabilities[int(outputs.labels[at])]


@pytest.mark.parametrize("num_objects", [1, 3, 80])
def test_kd_on_proposals_equals_the_formula(num_objects: int) -> None:
    outputs, temperature = proposals(num_objects)
    parts = create_method("kd", task_weight=1.0, kd_weight=0.7)(outputs, temperature)
    for i in range(3 * PROPOSALS):
        student, teacher, _, factor = as_numpy(outputs, temperature, i)
        assert parts["kd"][i].item() == pytest.approx(0.7 * factor * rel_entr(teacher, student).sum(), rel=1e-9)
        assert parts["task"][i].item() == pytest.approx(task_by_definition(outputs, i), rel=1e-9)


@pytest.mark.parametrize("num_objects", [1, 3, 80])
def test_dkd_on_proposals_equals_the_formula_with_background_as_a_target(num_objects: int) -> None:
    """α 1 and β 0.25, as published for detection."""
    outputs, temperature = proposals(num_objects)
    parts = create_method("dkd", alpha=1.0, beta=0.25, warmup_epochs=0)(outputs, temperature)
    assert 0 < int((outputs.labels == 0).sum()) < len(outputs.labels)
    for i in range(3 * PROPOSALS):
        student, teacher, label, factor = as_numpy(outputs, temperature, i)
        binary = [np.array([p[label], 1.0 - p[label]]) for p in (teacher, student)]
        others = [np.delete(p, label) / np.delete(p, label).sum() for p in (teacher, student)]
        assert parts["tckd"][i].item() == pytest.approx(factor * rel_entr(*binary).sum(), rel=1e-7, abs=1e-12)
        assert parts["nckd"][i].item() == pytest.approx(0.25 * factor * rel_entr(*others).sum(), rel=1e-7, abs=1e-12)
        assert parts["task"][i].item() == pytest.approx(task_by_definition(outputs, i), rel=1e-9)


@pytest.mark.parametrize("name", ["kd", "dkd"])
def test_a_proposals_temperature_changes_its_own_term_alone(name: str) -> None:
    outputs, temperature = proposals(3)
    other = Temperature(teacher=temperature.teacher.clone(), student=temperature.student.clone())
    other.teacher[5] *= 2.0
    method = create_method(name)
    before, after = (torch.stack(list(method(outputs, chosen).values())).sum(dim=0) for chosen in (temperature, other))
    assert (before != after).nonzero().flatten().tolist() == [5]


def test_classes_and_boxes_reach_the_gradient() -> None:
    outputs, temperature = proposals(3)
    sum(create_method("kd", task_weight=0.5)(outputs, temperature).values()).sum().backward()
    torch.testing.assert_close(outputs.further_loss.grad, torch.full_like(outputs.further_loss, 0.5))
    assert (outputs.student_logits.grad.abs().sum(dim=-1) > 0).all()
