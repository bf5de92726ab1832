"""MLKD against NumPy at each of its five temperatures, with one view of every image and with two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_logits import logits, two_views

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return powers / powers.sum(axis=1, keepdims=True)


def test_each_level_is_summed_over_five_multiples_of_every_instances_temperature() -> None:
    student, teacher, labels = logits(7, 4)
    temperature = Temperature(torch.linspace(2.0, 6.0, 7).double(), torch.linspace(5.0, 3.0, 7).double())
    parts = create_method("mlkd", two_views=False).logit_losses(InstanceOutputs(student, teacher, labels), temperature)
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
    outputs, method = InstanceOutputs(student, teacher, labels), create_method("mlkd", two_views=False)
    with_factor = method.logit_losses(outputs, Temperature(4 * ones, 4 * ones, 16 * ones))
    for name, value in method.logit_losses(outputs, Temperature.shared(4 * ones)).items():
        torch.testing.assert_close(with_factor[name], value)


def test_gradcheck() -> None:
    student, teacher, labels = logits(3, 3)
    temperature, method = (
        Temperature.shared(torch.linspace(2.0, 4.0, 3).double()),
        create_method("mlkd", two_views=False),
    )

    def loss(given: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(method.logit_losses(InstanceOutputs(given, teacher, labels), temperature).values()))

    assert torch.autograd.gradcheck(loss, student.requires_grad_(True))


def kl_divergences(outputs: InstanceOutputs, temperature: float) -> np.ndarray:
    """T² · KL(teacher ‖ student) of each instance."""
    p, q = (softmax(values.numpy() / temperature) for values in (outputs.teacher_logits, outputs.student_logits))
    return temperature**2 * (p * np.log(p / q)).sum(axis=1)


@pytest.mark.parametrize("count", [6, 7])
def test_two_views_are_added_up_as_in_the_authors_code(count: int) -> None:
    """An even number of instances has the mean of the middle two for a median, an odd one an instance of its own."""
    outputs = two_views(count, 5)
    second = outputs.second_view()
    temperature = Temperature.shared(torch.full((count,), 4.0).double())
    found = create_method("mlkd")(outputs, temperature)
    one_view = create_method("mlkd", two_views=False).logit_losses(outputs, temperature)
    p = softmax(outputs.teacher_logits.numpy())
    sure, known = p.max(axis=1), p.sum(axis=0)
    shares = {
        "mlkd_instances": np.mean(sure <= np.percentile(sure, 50)),
        "mlkd_batch": np.mean(sure <= np.percentile(sure, 50)),
        "mlkd_classes": np.mean(known <= np.percentile(known, 50)),
    }
    assert shares["mlkd_classes"] == 3 / 5
    assert shares["mlkd_batch"] == {6: 3 / 6, 7: 4 / 7}[count]
    for name, share in shares.items():
        np.testing.assert_allclose(found[name], share * one_view[name].numpy(), rtol=1e-9)
    of_second = sum(kl_divergences(second, value) for value in (3.0, 4.0, 5.0))
    of_first = sum(kl_divergences(outputs, value) for value in (2.0, 6.0))
    np.testing.assert_allclose(found["mlkd_second"], 0.9 * (of_second + of_first), rtol=1e-9)
    entropies = [-np.log(softmax(view.student_logits.numpy())) for view in (outputs, second)]
    expected = [sum(of_view[i, label] for of_view in entropies) for i, label in enumerate(outputs.labels)]
    np.testing.assert_allclose(found["task"], 0.1 * np.array(expected), rtol=1e-9)


def test_two_views_are_needed_where_two_are_compared() -> None:
    student, teacher, labels = logits(3, 4)
    method, temperature = create_method("mlkd"), Temperature.shared(torch.ones(3).double())
    assert method.needs_second_view
    with pytest.raises(ValueError, match="needs outputs for two views"):
        method(InstanceOutputs(student, teacher, labels), temperature)
    assert not create_method("mlkd", two_views=False).needs_second_view
