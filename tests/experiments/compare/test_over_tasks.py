"""Arms over several tasks: mean, worst and interval of their regrets."""

from __future__ import annotations

import re

import numpy as np
import pytest

from experiments.compare import statistics
from experiments.compare.analysis import analyze
from experiments.compare.over_tasks import analyze_over_tasks
from experiments.compare.rows import LAST, Row
from experiments.compare.statistics import student_interval
from experiments.compare.table import print_over_tasks

FIXED = ("T=1", "T=4")


def rows_of(task: str, arm: str, *accuracies: float, cost: float = 1.0) -> list[Row]:
    return [Row(arm, task, seed, accuracy, accuracy, 1, cost, cost) for seed, accuracy in enumerate(accuracies)]


ROWS = [
    *rows_of("easy", "T=1", 0.90, 0.90),
    *rows_of("easy", "T=4", 0.94, 0.94),
    *rows_of("easy", "steady", 0.95, 0.95, cost=2.0),
    *rows_of("easy", "wild", 0.91, 0.91),
    *rows_of("hard", "T=1", 0.50, 0.52),
    *rows_of("hard", "T=4", 0.40, 0.42),
    *rows_of("hard", "steady", 0.50, 0.52, cost=8.0),
    *rows_of("hard", "wild", 0.60, 0.62),
    *rows_of("hard", "rare", 0.70, 0.72),
]


def over_tasks() -> dict:
    found = analyze_over_tasks(analyze(ROWS, {"easy": FIXED, "hard": FIXED}, "T=4"))
    assert found is not None
    return found


def test_regret_is_to_the_best_fixed_temperature_of_every_task() -> None:
    arms = over_tasks()[LAST]
    assert arms["steady"]["regret"]["mean"] == pytest.approx((0.01 + 0.0) / 2)
    assert arms["wild"]["regret"]["mean"] == pytest.approx((-0.03 + 0.10) / 2)
    assert arms["wild"]["worst"] == {"task": "easy", "regret": pytest.approx(-0.03)}
    assert arms["T=4"]["worst"] == {"task": "hard", "regret": pytest.approx(-0.10)}
    assert [arms[arm]["at_or_above"] for arm in ("steady", "wild", "T=1", "T=4")] == [2, 1, 1, 1]
    assert arms["T=1"]["difference"]["mean"] == pytest.approx((-0.04 + 0.10) / 2)
    assert arms["steady"]["cost_ratio"] == pytest.approx(4.0)  # the geometric mean of 2 and 8


def test_the_interval_over_tasks_is_students_t_of_their_means() -> None:
    found = over_tasks()[LAST]["wild"]["regret"]
    assert found["interval"] == pytest.approx(student_interval(np.array([-0.03, 0.10])))
    assert found["count"] == 2


def test_an_arm_that_lacks_a_task_says_so() -> None:
    rare = over_tasks()[LAST]["rare"]
    assert rare["tasks"] == 1
    assert rare["regret"]["interval"] is None
    assert rare["regret"]["mean"] == pytest.approx(0.2)


def test_one_task_has_nothing_to_be_summed_up_over() -> None:
    assert analyze_over_tasks(analyze(ROWS, {"easy": FIXED}, "T=4")) is None


@pytest.mark.slow
def test_the_interval_by_seeds_contains_the_mean_over_these_tasks_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "bootstrap_interval", lambda _: None)  # which takes its time
    generator, effects, hits = np.random.default_rng(0), np.array([0.02, -0.01, 0.0, 0.03]), 0
    for _ in range(400):
        rows = []
        for task, effect in enumerate(effects):
            fixed = generator.normal(0.8, 0.02, 5)
            other = fixed + effect + generator.normal(0.0, 0.002 * (1 + 4 * task), 5)  # unequal variances
            rows += [*rows_of(str(task), "T=4", *fixed), *rows_of(str(task), "other", *other)]
        found = analyze_over_tasks(analyze(rows, {str(task): ["T=4"] for task in range(4)}, "T=4"))
        assert found is not None
        low, high = found[LAST]["other"]["regret"]["seeds_interval"]
        hits += low <= effects.mean() <= high
    assert 0.92 <= hits / 400 <= 0.98  # 0.95 give or take three standard errors


def test_the_table_goes_from_the_best_mean_to_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    print_over_tasks(over_tasks())
    printed = capsys.readouterr().out
    order = re.findall(r"^ +(\S+) .* \d of \d ", printed, flags=re.MULTILINE)
    assert order == ["wild", "steady", "T=1", "T=4", "rare"]
    assert "-3.00 easy" in printed
    assert "4.00 ×" in printed
