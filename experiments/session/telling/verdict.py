"""What a finished run means, in sentences made from its summary alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from experiments.session.provenance import ACCURACY, metric_of

_QUANTILE = 1.96
"""Standard errors within which a difference may be chance in 95 of 100 cases."""
TRY = (
    "What to try: a teacher that has seen more images than the student's own, a lower temperature (--rule fixed "
    "--fixed-temperature 2), or less of the teacher in the loss (--method-options kd_weight 0.3)."
)


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Say how good the student is that was kept, what its teacher reaches, and whether distilling it helped.

    Accuracies are those on the test images, or on the validation images where there is no test.
    """
    part = "test" if summary.get("student_test_accuracy") is not None else "val"
    student, teacher = (summary.get(f"{who}_{part}_accuracy") for who in ("student", "teacher"))
    alone = summary.get(f"student_alone_{part}_accuracy")
    if student is None:
        return []
    data = summary.get("data") or {}
    count = data.get("test" if part == "test" else "validation")
    words = (
        f"On {f'{count:,} ' if count else ''}{'test' if part == 'test' else 'validation'} images the student reaches "
    )
    words += f"{_percent(student)} {metric_of(summary)}"
    told = [f"{words}, its teacher {_percent(teacher)}." if teacher is not None else f"{words}."]
    noise = _noise(summary, count, student)
    if alone is not None:
        told += _against_alone(student, alone, noise, summary)
    elif teacher is not None and student - teacher > max(noise, 0.01):
        told.append("The student is better than its teacher: a better teacher may carry it further.")
    return told


def _against_alone(student: float, alone: float, noise: float, summary: Mapping[str, Any]) -> list[str]:
    both = f"{_percent(alone)} alone, {_percent(student)} distilled"
    if student >= alone:
        sure = student - alone > noise
        return [f"Distillation helped: {both}." if sure else f"Distillation made no difference that shows: {both}."]
    if alone - student <= noise:
        return [f"Distillation made no difference that shows: {both}."]
    temperature = summary.get("mean_temperature")
    mean = "" if temperature is None else f" at a mean temperature of {temperature:.3g}"
    return [f"Distillation hurt: {both}{mean}.", TRY]


def _noise(summary: Mapping[str, Any], count: int | None, share: float) -> float:
    """Return the difference of two accuracies that so many images cannot tell from none; one point for an AP."""
    if not count or metric_of(summary) != ACCURACY:
        return 0.01
    return _QUANTILE * math.sqrt(2.0 * max(share * (1.0 - share), 1.0 / count) / count)


def _percent(share: float) -> str:
    return f"{100.0 * share:.2f} %"
