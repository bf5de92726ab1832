"""CRLD against NumPy: within and across two views, where the teacher is sure enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_logits import logits, two_views
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method

COUNT, CLASSES = 16, 5


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def divergence(teacher: Tensor, student: Tensor, temperature: Temperature, at: int) -> float:
    """The factor T_s · T_t times KL(teacher ‖ student) of one instance."""
    of_teacher, of_student = temperature.teacher[at].item(), temperature.student[at].item()
    p, q = softmax(teacher[at].numpy() / of_teacher), softmax(student[at].numpy() / of_student)
    return float(of_teacher * of_student * (p * np.log(p / q)).sum())


def temperatures(count: int = COUNT) -> Temperature:
    return Temperature(torch.linspace(1.0, 8.0, count).double(), torch.linspace(6.0, 2.0, count).double())


@pytest.mark.parametrize("thresholds", [(0.9, 0.2), (0.5, 0.8), (0.0, 1.0)])
def test_every_term_equals_the_formula(thresholds: tuple[float, float]) -> None:
    outputs, temperature = two_views(COUNT, CLASSES), temperatures()
    second = outputs.second_view()
    options = {"within_threshold": thresholds[0], "across_threshold": thresholds[1], "within_weight": 3.0}
    found = create_method("crld", task_weight=0.5, across_weight=0.25, **options)(outputs, temperature)
    counted = [0, 0]
    for i in range(COUNT):
        tops = [softmax(view.teacher_logits[i].numpy()).max() for view in (outputs, second)]
        is_sure = [top >= threshold for top, threshold in zip(tops, thresholds, strict=True)]
        counted = [count + sure for count, sure in zip(counted, is_sure, strict=True)]
        (s1, t1), (s2, t2) = ((view.student_logits, view.teacher_logits) for view in (outputs, second))
        within = divergence(t1, s1, temperature, i) + divergence(t2, s2, temperature, i)
        across = divergence(t1, s2, temperature, i) + divergence(t2, s1, temperature, i)
        assert found["crld_within"][i].item() == pytest.approx(3.0 * is_sure[0] * within, rel=1e-9)
        assert found["crld_across"][i].item() == pytest.approx(0.25 * is_sure[1] * across, rel=1e-9)
        task = -sum(np.log(softmax(s[i].numpy())[outputs.labels[i]]) for s in (s1, s2))
        assert found["task"][i].item() == pytest.approx(0.5 * task, rel=1e-9)
    if thresholds == (0.5, 0.8):
        assert all(0 < count < COUNT for count in counted)


def test_a_temperature_acts_on_both_views_of_its_instance_alone() -> None:
    outputs = replace(two_views(COUNT, CLASSES, scale=1.0))
    method = create_method("crld", within_threshold=0.0, across_threshold=0.0)
    other = temperatures()
    other.student[3] *= 2.0
    before, after = (method.logit_losses(outputs, chosen) for chosen in (temperatures(), other))
    for name, value in before.items():
        assert (value != after[name]).nonzero().flatten().tolist() == [3]


def test_the_same_view_twice_is_kd_twice_within_and_twice_across() -> None:
    student, teacher, labels = logits(COUNT, CLASSES)
    outputs = InstanceOutputs(student, teacher, labels, second_student_logits=student, second_teacher_logits=teacher)
    always = {"within_threshold": 0.0, "across_threshold": 0.0}
    found = create_method("crld", **always).logit_losses(outputs, temperatures())
    kd = create_method("kd", kd_weight=1.0).logit_losses(InstanceOutputs(student, teacher, labels), temperatures())
    torch.testing.assert_close(found["crld_within"], 4.0 * kd["kd"])
    torch.testing.assert_close(found["crld_across"], 1.0 * kd["kd"])


def test_gradcheck_by_the_logits_of_both_views() -> None:
    outputs = two_views(3, 4)
    method = create_method("crld", within_threshold=0.0)

    def loss(first: Tensor, second: Tensor) -> Tensor:
        given = replace(outputs, student_logits=first, second_student_logits=second)
        return torch.stack(list(method(given, temperatures(3)).values()))

    first, second = (values.requires_grad_(True) for values in outputs.logits_of_student)
    assert torch.autograd.gradcheck(loss, (first, second))


def test_one_view_is_not_enough() -> None:
    with pytest.raises(ValueError, match="needs outputs for two views"):
        create_method("crld")(InstanceOutputs(*logits(3, 4)), temperatures(3))
