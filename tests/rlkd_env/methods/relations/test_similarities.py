"""PKT and SP against their definitions, written out in float64 with Python loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, at_temperature, frozen_teacher, pair_of, real_outputs
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method, kd_loss, pkt_loss, sp_loss

Loss = Callable[[Tensor, Tensor], Tensor]


def features(n: int, student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return (
        torch.randn(n, *student, generator=generator, dtype=torch.float64),
        torch.randn(n, *teacher, generator=generator, dtype=torch.float64).relu(),
    )


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a.ravel(), b.ravel(), strict=True))


def pkt_rows(student: np.ndarray, teacher: np.ndarray) -> list[float]:
    def distributions(f: np.ndarray) -> list[list[float]]:
        norms = [math.sqrt(dot(a, a)) for a in f]
        kernel = [
            [(dot(a, b) / (u * v) + 1) / 2 for b, v in zip(f, norms, strict=True)]
            for a, u in zip(f, norms, strict=True)
        ]
        return [[k / sum(row) for k in row] for row in kernel]

    p, q = distributions(student), distributions(teacher)
    n = len(student)
    return [sum(q[i][j] * math.log((q[i][j] + 1e-7) / (p[i][j] + 1e-7)) for j in range(n)) / n for i in range(n)]


def sp_rows(student: np.ndarray, teacher: np.ndarray) -> list[float]:
    def similarities(f: np.ndarray) -> list[list[float]]:
        gram = [[dot(a, b) for b in f] for a in f]
        return [[g / math.sqrt(sum(h * h for h in row)) for g in row] for row in gram]

    p, q = similarities(student), similarities(teacher)
    n = len(student)
    return [sum((q[i][j] - p[i][j]) ** 2 for j in range(n)) / n for i in range(n)]


CASES = [
    (pkt_loss, pkt_rows, (5,), (9,)),
    (pkt_loss, pkt_rows, (64,), (64,)),
    (sp_loss, sp_rows, (3, 4, 4), (6, 2, 3)),
    (sp_loss, sp_rows, (2, 1, 1), (2, 4, 4)),
]


@pytest.mark.parametrize(("loss", "rows", "student_size", "teacher_size"), CASES)
@pytest.mark.parametrize("n", [2, 7, 64])
def test_loss_equals_its_definition_per_instance_and_per_batch(
    n: int, loss: Loss, rows: Callable[..., list[float]], student_size: tuple[int, ...], teacher_size: tuple[int, ...]
) -> None:
    student, teacher = features(n, student_size, teacher_size)
    expected = rows(student.numpy(), teacher.numpy())
    computed = loss(student, teacher)
    np.testing.assert_allclose(computed, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(computed.mean(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 1e-3)])
@pytest.mark.parametrize(("loss", "rows", "student_size", "teacher_size"), CASES)
def test_lower_precision_of_the_features_does_not_reach_the_similarities(
    loss: Loss,
    rows: object,
    student_size: tuple[int, ...],
    teacher_size: tuple[int, ...],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    student, teacher = (values.to(dtype) for values in features(64, student_size, teacher_size))
    computed = loss(student, teacher)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed.double(), loss(student.double(), teacher.double()), rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize(("loss", "rows", "student_size", "teacher_size"), CASES)
def test_gradcheck(loss: Loss, rows: object, student_size: tuple[int, ...], teacher_size: tuple[int, ...]) -> None:
    student, teacher = features(4, student_size, teacher_size)
    assert torch.autograd.gradcheck(lambda f: loss(f, teacher), student.requires_grad_(True))


@pytest.mark.parametrize(("loss", "rows", "student_size", "teacher_size"), CASES)
def test_features_of_zero_or_huge_size_give_no_nan(
    loss: Loss, rows: object, student_size: tuple[int, ...], teacher_size: tuple[int, ...]
) -> None:
    student, teacher = (values.float() for values in features(4, student_size, teacher_size))
    student[0], teacher[1], student[2] = 0.0, 0.0, student[2] * 1e4
    student.requires_grad_(True)
    value = loss(student, teacher)
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", ["pkt", "sp"])
def test_the_same_features_cost_nothing(name: str) -> None:
    student, _ = features(8, (4, 3, 3), (1,))
    loss = pkt_loss(student.flatten(1), 2.0 * student.flatten(1)) if name == "pkt" else sp_loss(student, 2.0 * student)
    torch.testing.assert_close(loss, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("name", "weight"), [("pkt", 30000.0), ("sp", 3000.0)])
def test_the_method_weighs_its_terms_as_published_for_batches_of_64(name: str, weight: float) -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs, temperature = real_outputs(8, student, teacher), at_temperature(8)
    parts = create_method(name, pair_of(student, teacher))(outputs, temperature)
    assert list(parts) == ["task", "kd", name]
    torch.testing.assert_close(parts["task"], 0.1 * outputs.task_loss)
    torch.testing.assert_close(parts["kd"], 0.9 * kd_loss(outputs.student_logits, outputs.teacher_logits, temperature))
    of_student, of_teacher = outputs.student_features, outputs.teacher_features
    own = (
        pkt_loss(of_student.pooled, of_teacher.pooled)
        if name == "pkt"
        else sp_loss(of_student.stages[-1], of_teacher.stages[-1])
    )
    torch.testing.assert_close(parts[name], weight * own)


def test_pkt_needs_no_maps_but_sp_does() -> None:
    pair = pair_of(FlatNetwork(), frozen_teacher())
    create_method("pkt", pair)
    with pytest.raises(UsageError, match="method 'sp' needs networks with feature maps; the student has none"):
        create_method("sp", pair)
