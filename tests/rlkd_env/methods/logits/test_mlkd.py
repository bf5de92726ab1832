"""MLKD against NumPy at each of its five temperatures."""

from __future__ import annotations

import numpy as np
import torch
from random_logits import logits

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return powers / powers.sum(axis=1, keepdims=True)


def test_each_level_is_summed_over_five_multiples_of_every_instances_temperature() -> None:
    student, teacher, labels = logits(7, 4)
    temperature = Temperature(torch.linspace(2.0, 6.0, 7).double(), torch.linspace(5.0, 3.0, 7).double())
    parts = create_method("mlkd").logit_losses(InstanceOutputs(student, teacher, labels), temperature)
    instances, batch, classes = 0.0, 0.0, 0.0
    for multiple in (2 / 4, 3 / 4, 4 / 4, 5 / 4, 6 / 4):
        of_teacher, of_student = (
            multiple * values.numpy()[:, None] for values in (temperature.teacher, temperature.student)
        )
        p, q = softmax(teacher.numpy() / of_teacher), softmax(student.numpy() / of_student)
        instances = instances + (of_teacher * of_student)[:, 0] * (p * np.log(p / q)).sum(axis=1)
        batch = batch + ((p @ p.T - q @ q.T) ** 2).sum(axis=1)
        classes = classes + ((p.T @ p - q.T @ q) ** 2).sum() / 4
    np.testing.assert_allclose(parts["mlkd_instances"], 0.9 * instances, rtol=1e-9)
    np.testing.assert_allclose(parts["mlkd_batch"], 0.9 * batch, rtol=1e-9)
    np.testing.assert_allclose(parts["mlkd_classes"].mean(), 0.9 * classes, rtol=1e-9)


def test_a_factor_of_the_temperatures_own_grows_with_them() -> None:
    student, teacher, labels = logits(3, 4)
    ones = torch.ones(3).double()
    outputs, method = InstanceOutputs(student, teacher, labels), create_method("mlkd")
    with_factor = method.logit_losses(outputs, Temperature(4 * ones, 4 * ones, 16 * ones))
    for name, value in method.logit_losses(outputs, Temperature.shared(4 * ones)).items():
        torch.testing.assert_close(with_factor[name], value)


def test_gradcheck() -> None:
    student, teacher, labels = logits(3, 3)
    temperature, method = Temperature.shared(torch.linspace(2.0, 4.0, 3).double()), create_method("mlkd")

    def loss(given: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(method.logit_losses(InstanceOutputs(given, teacher, labels), temperature).values()))

    assert torch.autograd.gradcheck(loss, student.requires_grad_(True))
