"""The analysis over all tasks of a comparison: every arm's regret on each of them, its mean and its worst.

A mean over tasks has two intervals of 95 %. The first, Student's t over the tasks' means, treats the tasks as a sample
and says what to expect of further tasks like them; runs of more seeds do not narrow it, as a task's seeds are no
independent tasks (Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006, section 3.1).
The second is for these tasks alone: it follows from the variances of the tasks' means over the seeds, with the degrees
of freedom of Welch and Satterthwaite (Satterthwaite, Biometrics Bulletin 2, 1946).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from experiments.compare.rows import STUDENTS
from experiments.compare.statistics import LEVEL, student_interval


@dataclass(frozen=True)
class MeanOverTasks:
    """A mean over tasks with the interval for tasks like these and that for these tasks; None where unknown."""

    mean: float
    count: int
    interval: tuple[float, float] | None
    seeds_interval: tuple[float, float] | None


def analyze_over_tasks(analysis: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an analysis of several tasks says of every arm over all of them, as plain values; None for one task.

    The result has ``tasks``, their names, and for the students ``last`` and ``chosen`` the arms by name. Each has the
    number of its ``tasks`` with a result; the ``regret`` against the best fixed temperature of each task and the
    ``difference`` to the baseline as :class:`MeanOverTasks`; its ``worst`` task by regret; on how many tasks its mean
    is ``at_or_above`` the best fixed temperature; and its ``cost_ratio``, the geometric mean over the tasks.
    """
    if len(analysis) < 2:
        return None
    result: dict[str, Any] = {"tasks": list(analysis)}
    for student in STUDENTS:
        arms = dict.fromkeys(arm for of_task in analysis.values() for arm in of_task[student]["arms"])
        result[student] = {arm: _of_arm(analysis, student, arm) for arm in arms}
    return result


def rank(of_arm: Mapping[str, Any], tasks: int) -> tuple[bool, float]:
    """Return the key by which arms are sorted: those with all tasks first, then by mean regret, the best first."""
    regret = of_arm["regret"]
    return of_arm["tasks"] < tasks, math.inf if regret is None else -regret["mean"]


def _of_arm(analysis: Mapping[str, Any], student: str, arm: str) -> dict[str, Any]:
    here = {task: of_task for task, of_task in analysis.items() if arm in of_task[student]["arms"]}
    metrics = {task: of_task[student]["arms"][arm] for task, of_task in here.items()}
    regrets = {task: found["regret"]["mean"] for task, found in metrics.items() if found["regret"]}
    worst = min(regrets, key=lambda task: regrets[task]) if regrets else None
    costs = [cost for of_task in here.values() if (cost := of_task["runs"][arm]["cost_ratio"])]
    return {
        "tasks": len(regrets),
        "regret": _mean(found["regret"] for found in metrics.values()),
        "difference": _mean(found["difference"] for found in metrics.values()),
        "worst": None if worst is None else {"task": worst, "regret": regrets[worst]},
        "at_or_above": sum(regret >= 0.0 for regret in regrets.values()),
        "cost_ratio": statistics.geometric_mean(costs) if costs else None,
    }


def _mean(estimates: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return None
    means = np.array([estimate["mean"] for estimate in known])
    over_tasks = student_interval(means) if len(means) > 1 else None
    return asdict(MeanOverTasks(float(means.mean()), len(means), over_tasks, _seeds_interval(known)))


def _seeds_interval(estimates: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Return the interval of the mean of independent estimates, each with a Student's t interval."""
    if any(estimate["interval"] is None for estimate in estimates):
        return None
    mean = statistics.fmean(estimate["mean"] for estimate in estimates)
    degrees = np.array([estimate["count"] - 1 for estimate in estimates], dtype=float)
    half = np.array([(estimate["interval"][1] - estimate["interval"][0]) / 2 for estimate in estimates])
    variances = (half / stats.t.ppf((1 + LEVEL) / 2, degrees)) ** 2  # of the tasks' means
    total = float(variances.sum())
    if total == 0.0:
        return mean, mean
    together = total**2 / float((variances**2 / degrees).sum())
    reach = float(stats.t.ppf((1 + LEVEL) / 2, together)) * math.sqrt(total) / len(estimates)
    return mean - reach, mean + reach
