"""Intervals that mean what they say: simulated comparisons with and without an effect."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compare.statistics import (
    bootstrap_interval,
    estimate_mean,
    paired_difference,
    probability_of_improvement,
    student_interval,
)


def covers(interval: tuple[float, float] | None, value: float) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


def test_the_interval_is_students() -> None:
    estimate = estimate_mean([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    half = 4.302653 * 1.0 / 3**0.5  # t of 2 degrees of freedom times deviation over root of n
    assert estimate.interval == pytest.approx((2.0 - half, 2.0 + half), abs=1e-5)
    low, high = estimate.bootstrap_interval or (0.0, 0.0)
    assert 1.0 <= low < 2.0 < high <= 3.0


def test_values_that_do_not_vary_and_single_ones_have_what_can_be_told() -> None:
    assert estimate_mean([0.5] * 4).interval == (0.5, 0.5)
    assert estimate_mean([0.5]).interval is None
    assert estimate_mean([0.5, 0.25]) is estimate_mean((0.5, 0.25))  # many arms are analysed twice
    with pytest.raises(ValueError, match="no values"):
        estimate_mean([])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])


def test_differences_are_paired() -> None:
    seeds = np.array([0.2, 0.5, 0.8, 0.9])  # vary by far more than the arms do
    difference = paired_difference(seeds + np.array([0.009, 0.01, 0.01, 0.011]), seeds)
    assert difference.mean == pytest.approx(0.01)
    assert covers(difference.interval, 0.01)
    assert not covers(difference.interval, 0.0)


def test_a_paired_difference_has_the_bootstrap_interval_of_its_mean() -> None:
    generator = np.random.default_rng(0)
    other = generator.normal(size=200)
    found = paired_difference(other + generator.normal(0.5, 1.0, 200), other)
    half = 1.96 / 200**0.5
    assert found.mean == pytest.approx(0.5, abs=2 * half)
    low, high = found.bootstrap_interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * half, rel=0.2)
    assert paired_difference(other, other).bootstrap_interval == (0.0, 0.0)


def test_the_probability_of_improvement_counts_pairs() -> None:
    # 1 beats 0; 2 beats 0 and has two ties; 3 beats all: 1 + 2 + 3 of 9 pairs.
    assert probability_of_improvement([1, 2, 3], [2, 2, 0]) == pytest.approx(6 / 9)
    assert probability_of_improvement([1, 2], [1, 2]) == 0.5
    assert probability_of_improvement([1, 2], [0]) == 1.0  # as where a seed of one arm has failed
    assert probability_of_improvement([1], [0, 1, 2]) == 0.5


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("kind", ["normal", "accuracies"])
def test_intervals_of_identical_arms_contain_zero(seeds: int, kind: str) -> None:
    generator = np.random.default_rng(0)

    def arm() -> np.ndarray:
        if kind == "accuracies":  # of 697 test images, with ties
            return generator.binomial(697, 0.95, seeds) / 697
        return generator.normal(0.95, 0.006, seeds)

    # Of 200 repetitions a right 95 % interval misses 93 % by chance once in a dozen times; of 2,000 never.
    contained = [covers(student_interval(arm() - arm()), 0.0) for _ in range(2000)]
    assert np.mean(contained) >= 0.93


def test_the_bootstrap_alone_would_promise_too_much() -> None:
    generator = np.random.default_rng(0)
    contained = [
        covers(bootstrap_interval(generator.normal(0.0, 1.0, 5)), 0.0)  # the reason for Student's t
        for _ in range(200)
    ]
    assert np.mean(contained) < 0.9
