"""The analysis of a comparison: every arm against the baseline and the best fixed temperature."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.compare.rows import STUDENTS, Row
from experiments.compare.statistics import estimate_mean, paired_difference, probability_of_improvement


def analyze(rows: Sequence[Row], fixed_arms: Mapping[str, Sequence[str]], baseline: str) -> dict[str, Any]:
    """Return the statistics by task, student and arm as plain values, for the tasks of ``fixed_arms``.

    A seed that one of two arms lacks, because its run failed or is not made yet, is left out of their difference. The
    best fixed temperature is chosen on the seeds that the arms in ``fixed_arms`` have in common, less those arms that
    have fewer than half as many seeds as another of them.

    Regret is the difference to the best of the arms at fixed temperatures in hindsight. ``result[task]`` holds
    ``baseline``, ``metric`` (of all means), ``runs`` (for every arm their number, time, cost and mean temperature) and,
    for the students ``last`` and ``chosen``, ``best_fixed`` (an arm) and ``arms``: for every arm ``mean``,
    ``difference`` to the baseline and ``regret``, each with its intervals, and ``probability_of_improvement`` over the
    baseline. Unknown values are None.
    """
    result: dict[str, Any] = {}
    for task, fixed in fixed_arms.items():
        by_arm: dict[str, list[Row]] = {}
        for row in rows:
            if row.task == task:
                by_arm.setdefault(row.arm, []).append(row)
        result[task] = {
            "baseline": baseline,
            "metric": next((row.metric for row in rows if row.task == task and not row.error), Row.metric),
            "runs": {arm: _runs(by_arm[arm], by_arm[baseline]) for arm in by_arm},
        }
        for student in STUDENTS:
            result[task][student] = _of_student(by_arm, student, baseline, fixed)
    return result


def _of_student(by_arm: dict[str, list[Row]], student: str, baseline: str, fixed_arms: Sequence[str]) -> dict[str, Any]:
    accuracies = {arm: _by_seed(of_arm, student) for arm, of_arm in by_arm.items()}
    best_fixed = best_arm({arm: accuracies[arm] for arm in fixed_arms if accuracies.get(arm)})
    return {
        "best_fixed": best_fixed,
        "arms": {
            arm: _of_arm(values, accuracies[baseline], accuracies[best_fixed] if best_fixed else {})
            for arm, values in accuracies.items()
        },
    }


def best_arm(accuracies: Mapping[str, Mapping[int, float]]) -> str | None:
    """Return the arm with the highest mean over the seeds that all have, or None; accuracies are by arm and seed.

    Arms with fewer than half as many seeds as another one do not take part: they would leave too few in common.
    """
    most = max(map(len, accuracies.values()), default=0)
    known = {arm: of_arm for arm, of_arm in accuracies.items() if 2 * len(of_arm) >= most}
    common = set.intersection(*map(set, known.values())) if known else set()
    if not common:
        return None
    return max(known, key=lambda arm: statistics.fmean(known[arm][seed] for seed in common))


def _of_arm(values: dict[int, float], baseline: dict[int, float], best_fixed: dict[int, float]) -> dict[str, Any]:
    own, others = list(values.values()), list(baseline.values())
    mean = estimate_mean(own) if own else None
    return {
        "mean": None if mean is None else asdict(mean),
        "difference": _difference(values, baseline),
        "regret": _difference(values, best_fixed),
        "probability_of_improvement": probability_of_improvement(own, others) if own and others else None,
    }


def _difference(values: dict[int, float], reference: dict[int, float]) -> dict[str, Any] | None:
    seeds = [seed for seed in values if seed in reference]
    if not seeds:
        return None
    return asdict(paired_difference([values[seed] for seed in seeds], [reference[seed] for seed in seeds]))


def _by_seed(rows: list[Row], student: str) -> dict[int, float]:
    found = {row.seed: row.accuracy(student) for row in rows}
    return {seed: accuracy for seed, accuracy in found.items() if accuracy is not None}


def _runs(rows: list[Row], baseline: list[Row]) -> dict[str, Any]:
    """Return the number of runs and their medians.

    On CPUs the cost is taken from CPU times, because other processes disturb wall-clock times.
    """
    clock = "cpu_seconds" if _median(rows, "cpu_seconds") and _median(baseline, "cpu_seconds") else "seconds"
    seconds, of_baseline = _median(rows, clock), _median(baseline, clock)
    return {
        "count": len(rows),
        "diverged": sum(row.diverged for row in rows),
        "failed": sum(bool(row.error) for row in rows),
        "seconds": _median(rows, "seconds"),
        "cpu_seconds": _median(rows, "cpu_seconds"),
        "cost_ratio": seconds / of_baseline if seconds and of_baseline else None,
        "agent_share": _median(rows, "agent_share"),
        "mean_temperature": _median(rows, "mean_temperature"),
    }


def _median(rows: list[Row], name: str) -> float | None:
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    return statistics.median(values) if values else None
