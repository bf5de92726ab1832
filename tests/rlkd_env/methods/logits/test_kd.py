"""The KD loss against its definition, written out in float64 with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_logits import logits

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method, kd_loss


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def kd_by_definition(student: np.ndarray, teacher: np.ndarray, t_student: float, t_teacher: float) -> float:
    """T_s T_t Σ_k p_t(k) log(p_t(k) / p_s(k)), for one instance."""
    p, q = softmax(teacher / t_teacher), softmax(student / t_student)
    return t_student * t_teacher * sum(p[k] * np.log(p[k] / q[k]) for k in range(len(p)))


@pytest.mark.parametrize(("n", "c"), [(2, 2), (7, 10), (64, 1000)])
def test_kd_equals_its_definition_per_instance(n: int, c: int) -> None:
    student, teacher, _ = logits(n, c)
    generator = torch.Generator().manual_seed(1)
    temperature = Temperature(
        teacher=0.5 + 9.5 * torch.rand(n, generator=generator, dtype=torch.float64),
        student=0.5 + 9.5 * torch.rand(n, generator=generator, dtype=torch.float64),
    )
    computed = kd_loss(student, teacher, temperature)
    expected = [
        kd_by_definition(
            student[i].numpy(), teacher[i].numpy(), float(temperature.student[i]), float(temperature.teacher[i])
        )
        for i in range(n)
    ]
    np.testing.assert_allclose(computed.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_kd_without_the_factor_is_smaller_by_temperature_squared() -> None:
    student, teacher, _ = logits(5, 10)
    temperature = Temperature.shared(torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    with_factor = kd_loss(student, teacher, temperature)
    without = kd_loss(student, teacher, temperature, temperature_squared=False)
    torch.testing.assert_close(with_factor, without * temperature.student**2)


def test_equal_temperatures_reproduce_the_scalar_loss_of_pytorch() -> None:
    student, teacher, _ = logits(16, 10)
    scalar = 4.0
    expected = scalar**2 * torch.nn.functional.kl_div(
        (student / scalar).log_softmax(1), (teacher / scalar).softmax(1), reduction="batchmean"
    )
    computed = kd_loss(student, teacher, Temperature.shared(torch.full((16,), scalar, dtype=torch.float64))).mean()
    torch.testing.assert_close(computed, expected)


def test_kd_gradient_is_temperature_times_the_difference_of_probabilities() -> None:
    student, teacher, _ = logits(4, 6)
    student.requires_grad_(True)
    t = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    kd_loss(student, teacher, Temperature.shared(t)).sum().backward()
    expected = t[:, None] * ((student / t[:, None]).softmax(1) - (teacher / t[:, None]).softmax(1))
    torch.testing.assert_close(student.grad, expected.detach())


def test_kd_passes_gradcheck() -> None:
    student, teacher, _ = logits(3, 4)
    temperature = Temperature.shared(torch.tensor([0.7, 2.0, 6.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda z: kd_loss(z, teacher, temperature), student.requires_grad_(True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_and_small_temperatures_give_no_nan(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype)
    loss = kd_loss(student, teacher, Temperature.shared(torch.full((2,), 0.5, dtype=dtype)))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


def test_kd_method_weighs_cross_entropy_and_kl_as_the_cifar_recipe_does() -> None:
    student, teacher, labels = logits(8, 10)
    outputs = InstanceOutputs(student, teacher, labels)
    temperature = Temperature.shared(torch.full((8,), 4.0, dtype=torch.float64))
    parts = create_method("kd")(outputs, temperature)
    cross_entropy = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(parts["task"], 0.1 * cross_entropy)
    torch.testing.assert_close(parts["kd"], 0.9 * kd_loss(student, teacher, temperature))
