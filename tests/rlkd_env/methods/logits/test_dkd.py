"""DKD against equation 7, written out in float64 with Python loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from losses import dkd_loss
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method, decoupled_divergences, kd_loss
from rlkd_env.methods.base import warmed_up


def logits(n: int, c: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * c)
    student = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def temperatures(teacher: float, student: float, n: int) -> Temperature:
    return Temperature(
        teacher=torch.full((n,), teacher, dtype=torch.float64), student=torch.full((n,), student, dtype=torch.float64)
    )


def by_definition(
    student: np.ndarray, teacher: np.ndarray, label: int, t_student: float, t_teacher: float
) -> tuple[float, float]:
    """TCKD and NCKD of one instance."""
    largest_student, largest_teacher = student.max(), teacher.max()
    e_student = [math.exp((z - largest_student) / t_student) for z in student]
    e_teacher = [math.exp((z - largest_teacher) / t_teacher) for z in teacher]
    others = [k for k in range(len(student)) if k != label]
    rest_student, rest_teacher = sum(e_student[k] for k in others), sum(e_teacher[k] for k in others)
    b_student = [e_student[label] / sum(e_student), rest_student / sum(e_student)]
    b_teacher = [e_teacher[label] / sum(e_teacher), rest_teacher / sum(e_teacher)]
    target = sum(t * math.log(t / s) for t, s in zip(b_teacher, b_student, strict=True))
    p = [e_student[k] / rest_student for k in others]
    q = [e_teacher[k] / rest_teacher for k in others]
    return target, sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


TEMPERATURES = [(0.5, 0.5), (1.0, 1.0), (4.0, 4.0), (20.0, 20.0), (2.0, 5.0)]


@pytest.mark.parametrize(("t_teacher", "t_student"), TEMPERATURES)
@pytest.mark.parametrize("c", [2, 10, 1000])
@pytest.mark.parametrize("n", [2, 7, 64])
def test_dkd_equals_its_definition_per_instance(n: int, c: int, t_teacher: float, t_student: float) -> None:
    student, teacher, labels = logits(n, c)
    temperature = temperatures(t_teacher, t_student, n)
    parts = [
        by_definition(student[i].numpy(), teacher[i].numpy(), int(labels[i]), t_student, t_teacher) for i in range(n)
    ]
    target, others = decoupled_divergences(student, teacher, labels, temperature)
    np.testing.assert_allclose(target, [part[0] for part in parts], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(others, [part[1] for part in parts], rtol=1e-6, atol=1e-9)
    expected = [t_teacher * t_student * (1.5 * part[0] + 8.0 * part[1]) for part in parts]
    loss = dkd_loss(student, teacher, labels, temperature, alpha=1.5, beta=8.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(loss.mean(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("c", [2, 10, 1000])
def test_dkd_in_lower_precision_is_near_its_definition(c: int, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher, labels = logits(7, c)
    student, teacher = student.to(dtype), teacher.to(dtype)
    exact = dkd_loss(student.double(), teacher.double(), labels, temperatures(4.0, 4.0, 7))
    computed = dkd_loss(student, teacher, labels, Temperature.shared(torch.full((7,), 4.0, dtype=dtype)))
    torch.testing.assert_close(computed.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("t_teacher", "t_student"), TEMPERATURES)
@pytest.mark.parametrize("c", [2, 10, 1000])
def test_kd_is_tckd_plus_nckd_weighed_by_the_teachers_doubt(c: int, t_teacher: float, t_student: float) -> None:
    student, teacher, labels = logits(16, c)
    temperature = temperatures(t_teacher, t_student, 16)
    target, others = decoupled_divergences(student, teacher, labels, temperature)
    probability = (teacher / t_teacher).softmax(dim=1)[torch.arange(16), labels]
    kd = kd_loss(student, teacher, temperature, temperature_squared=False)
    torch.testing.assert_close(target + (1 - probability) * others, kd, rtol=1e-8, atol=1e-10)


def test_each_instance_has_its_own_temperature() -> None:
    student, teacher, labels = logits(5, 10)
    temperature = Temperature.shared(torch.tensor([0.5, 1.0, 2.0, 4.0, 20.0], dtype=torch.float64))
    together = dkd_loss(student, teacher, labels, temperature)
    for i in range(5):
        value = float(temperature.student[i])
        scalar = dkd_loss(student, teacher, labels, temperatures(value, value, 5))
        torch.testing.assert_close(together[i], scalar[i])
    without = dkd_loss(student, teacher, labels, temperature, temperature_squared=False)
    torch.testing.assert_close(together, without * temperature.student**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("c", [2, 3, 10])
def test_extreme_logits_and_small_temperatures_give_no_nan(c: int, dtype: torch.dtype) -> None:
    student = torch.zeros(4, c, dtype=dtype)
    student[:2, 0], student[2:, 0], student[:2, 1], student[2:, 1] = 1e4, -1e4, -1e4, 1e4
    teacher, labels = -student, torch.tensor([0, 1, 0, 1])
    student.requires_grad_(True)
    temperature = Temperature.shared(torch.full((4,), 0.5, dtype=dtype))
    target, others = decoupled_divergences(student, teacher, labels, temperature)
    (target + others).sum().backward()
    assert target.isfinite().all()
    assert others.isfinite().all()
    assert student.grad.isfinite().all()
    if c == 2:
        assert torch.equal(others, torch.zeros(4, dtype=dtype))


def test_dkd_passes_gradcheck() -> None:
    student, teacher, labels = logits(3, 4)
    temperature = Temperature.shared(torch.tensor([0.7, 2.0, 6.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda z: dkd_loss(z, teacher, labels, temperature), student.clone().requires_grad_(True)
    )


@pytest.mark.parametrize(
    ("epoch", "share"), [(0.0, 0.05), (0.99, 0.05), (1.0, 0.1), (18.5, 0.95), (19.0, 1.0), (math.inf, 1.0)]
)
def test_the_weight_grows_over_20_epochs_counted_from_1(epoch: float, share: float) -> None:
    student, teacher, labels = logits(4, 10)
    temperature = temperatures(4.0, 4.0, 4)
    parts = create_method("dkd")(InstanceOutputs(student, teacher, labels, epoch=epoch), temperature)
    target, others = decoupled_divergences(student, teacher, labels, temperature)
    torch.testing.assert_close(parts["task"], torch.nn.functional.cross_entropy(student, labels, reduction="none"))
    torch.testing.assert_close(parts["tckd"], share * 16 * target)
    torch.testing.assert_close(parts["nckd"], share * 16 * 2.0 * others)


def test_without_a_warm_up_the_first_epoch_has_all_the_weight() -> None:
    assert warmed_up(0.0, 0) == 1.0


def test_a_mixed_image_has_the_class_of_its_larger_share() -> None:
    student, teacher, labels = logits(3, 10)
    mixed = InstanceOutputs(
        student, teacher, labels, partner_labels=(labels + 1) % 10, label_share=torch.tensor([1.0, 0.7, 0.9])
    )
    plain = InstanceOutputs(student, teacher, labels)
    temperature = temperatures(4.0, 4.0, 3)
    method = create_method("dkd")
    for name, value in method.logit_losses(plain, temperature).items():
        assert torch.equal(method.logit_losses(mixed, temperature)[name], value)


def test_with_one_class_beside_the_target_it_says_that_a_term_is_empty() -> None:
    method = create_method("dkd")
    assert method.remark(num_logits=3) is None
    assert "nckd" in str(method.remark(num_logits=2))
    logits = torch.randn(2, 5, 2)
    outputs = InstanceOutputs(*logits, torch.arange(5) % 2)
    assert method(outputs, Temperature.shared(torch.full((5,), 4.0)))["nckd"].abs().max() == 0
