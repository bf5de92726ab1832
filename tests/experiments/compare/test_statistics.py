"""Intervals that mean what they say: simulated comparisons with and without an effect."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compare.analysis import analyze
from experiments.compare.rows import LAST, Row
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


def rows_of(arm: str, accuracies: np.ndarray) -> list[Row]:
    return [Row(arm, "task", seed, accuracy, accuracy, 1, 2.0) for seed, accuracy in enumerate(accuracies.tolist())]


def test_a_planted_better_arm_is_found_with_its_size() -> None:
    generator = np.random.default_rng(0)
    found, planted = [], 0.01
    for _ in range(25):
        seeds = generator.normal(0.9, 0.02, 10)
        noise = generator.normal(0.0, 0.004, (3, 10))
        rows = [
            *rows_of("T=4", seeds + noise[0]),
            *rows_of("T=1", seeds + noise[1] - 0.02),
            *rows_of("planted", seeds + noise[2] + planted),
        ]
        told = analyze(rows, ["task"], "T=4", ["T=4", "T=1"])["task"][LAST]
        assert told["best_fixed"] == "T=4"
        arm = told["arms"]["planted"]
        assert arm["regret"] == arm["difference"]
        assert arm["probability_of_improvement"] > 0.5 or arm["difference"]["mean"] < planted
        found.append((covers(arm["difference"]["interval"], planted), arm["difference"]["interval"][0] > 0))
    contains_its_size, is_clear_of_zero = np.mean(found, axis=0)
    assert contains_its_size >= 0.9
    assert is_clear_of_zero >= 0.95  # noncentral t: 5.6 standard errors are seen in 99.8 % of the cases


def test_runs_that_failed_are_left_out_in_pairs_and_counted() -> None:
    rows = [*rows_of("T=4", np.array([0.5, 0.6, 0.7])), *rows_of("other", np.array([0.6, 0.7]))]
    rows.append(Row("other", "task", 2, error="out of memory"))
    told = analyze(rows, ["task"], "T=4", ["T=4"])["task"]
    assert told["runs"]["other"]["failed"] == 1
    difference = told[LAST]["arms"]["other"]["difference"]
    assert difference["count"] == 2
    assert difference["mean"] == pytest.approx(0.1)


def test_an_arm_without_any_figure_has_none() -> None:
    rows = [*rows_of("T=4", np.array([0.5, 0.6])), Row("other", "task", 0, error="no"), Row("other", "task", 1)]
    told = analyze(rows, ["task"], "T=4", [])["task"][LAST]
    assert told["best_fixed"] is None
    assert set(told["arms"]["other"].values()) == {None}


def test_the_cost_is_taken_from_the_seconds_of_processes_where_all_have_them() -> None:
    rows = [Row("T=4", "task", 0, 0.5, 0.5, 1, seconds=8.0, cpu_seconds=1.0)]
    rows += [Row("a", "task", 0, 0.5, 0.5, 1, seconds=8.0, cpu_seconds=3.0), Row("b", "task", 0, 0.5, 0.5, 1, 4.0)]
    runs = analyze(rows, ["task"], "T=4", [])["task"]["runs"]
    assert runs["a"]["cost_ratio"] == 3.0
    assert runs["b"]["cost_ratio"] == 0.5
