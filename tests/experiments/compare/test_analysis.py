"""Arms against the baseline and the best fixed temperature, from the rows of their runs."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compare.analysis import analyze
from experiments.compare.rows import LAST, Row


def covers(interval: tuple[float, float] | None, value: float) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


def rows_of(arm: str, accuracies: np.ndarray) -> list[Row]:
    return [Row(arm, "task", seed, accuracy, accuracy, 1, 2.0) for seed, accuracy in enumerate(accuracies.tolist())]


@pytest.mark.slow
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
        told = analyze(rows, {"task": ["T=4", "T=1"]}, "T=4")["task"][LAST]
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
    told = analyze(rows, {"task": ["T=4"]}, "T=4")["task"]
    assert told["runs"]["other"]["failed"] == 1
    difference = told[LAST]["arms"]["other"]["difference"]
    assert difference["count"] == 2
    assert difference["mean"] == pytest.approx(0.1)


def test_an_arm_without_any_figure_has_none() -> None:
    rows = [*rows_of("T=4", np.array([0.5, 0.6])), Row("other", "task", 0, error="no"), Row("other", "task", 1)]
    told = analyze(rows, {"task": []}, "T=4")["task"][LAST]
    assert told["best_fixed"] is None
    assert set(told["arms"]["other"].values()) == {None}


def test_the_cost_is_taken_from_the_seconds_of_processes_where_all_have_them() -> None:
    rows = [Row("T=4", "task", 0, 0.5, 0.5, 1, seconds=8.0, cpu_seconds=1.0)]
    rows += [Row("a", "task", 0, 0.5, 0.5, 1, seconds=8.0, cpu_seconds=3.0), Row("b", "task", 0, 0.5, 0.5, 1, 4.0)]
    runs = analyze(rows, {"task": []}, "T=4")["task"]["runs"]
    assert runs["a"]["cost_ratio"] == 3.0
    assert runs["b"]["cost_ratio"] == 0.5


def test_regret_is_the_difference_to_the_fixed_temperature_that_was_best_in_hindsight() -> None:
    rows = [
        *rows_of("T=4", np.array([0.5, 0.6])),
        *rows_of("T=8", np.array([0.7, 0.8])),
        *rows_of("ppo", np.array([0.65, 0.9])),
    ]
    told = analyze(rows, {"task": ["T=4", "T=8"]}, "T=4")["task"][LAST]
    assert told["best_fixed"] == "T=8"
    means = {arm: (of_arm["difference"]["mean"], of_arm["regret"]["mean"]) for arm, of_arm in told["arms"].items()}
    for arm, expected in {"T=4": (0.0, -0.2), "T=8": (0.2, 0.0), "ppo": (0.225, 0.025)}.items():
        assert means[arm] == pytest.approx(expected), arm
