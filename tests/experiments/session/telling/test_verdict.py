"""What a run means is said from its summary."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.session.telling.verdict import TRY, verdict


def told(student: float, alone: float | None = None, teacher: float = 0.9, count: int | None = 1000) -> str:
    summary: dict[str, Any] = {"student_test_accuracy": student, "teacher_test_accuracy": teacher}
    summary |= {"mean_temperature": 4.0, "data": {"test": count}}
    return " ".join(verdict(summary | ({} if alone is None else {"student_alone_test_accuracy": alone})))


def test_a_distillation_that_hurts_is_told_with_what_to_try() -> None:
    words = told(0.3, alone=0.52)
    assert words.startswith("On 1,000 test images the student reaches 30.00 % accuracy, its teacher 90.00 %.")
    assert "Distillation hurt: 52.00 % alone, 30.00 % distilled at a mean temperature of 4." in words
    assert words.endswith(TRY)


@pytest.mark.parametrize(("student", "alone"), [(0.91, 0.90), (0.90, 0.91)])
def test_a_difference_that_the_images_cannot_show_is_none(student: float, alone: float) -> None:
    # 1.96 standard errors of the difference of two shares of 0.9 are 1.96 * sqrt(2 * 0.09 / 1000), 2.6 points.
    assert "made no difference that shows" in told(student, alone)
    assert "made no difference" not in told(student, alone, count=100_000)


def test_help_without_a_student_alone_is_not_claimed() -> None:
    assert "helped" not in told(0.8)
    assert "Distillation helped: 80.00 % alone, 90.00 % distilled." in told(0.9, alone=0.8)
    assert "better teacher" in told(0.99)


def test_without_test_images_it_is_the_validation_that_is_told() -> None:
    summary = {"student_val_accuracy": 0.5, "teacher_val_accuracy": 0.75, "data": {"validation": 40}}
    assert verdict(summary) == ["On 40 validation images the student reaches 50.00 % accuracy, its teacher 75.00 %."]
