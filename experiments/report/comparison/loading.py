"""Reads and checks the folder of a comparison for its report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.arms import ALONE
from experiments.compare.over_tasks import rank
from experiments.compare.rows import CHOSEN, COMPARISON_FILE, COMPARISON_VERSION, LAST
from experiments.report.formatting import number, signed
from experiments.report.run.loading import History, read_history
from experiments.session.folder import HISTORY_FILE
from experiments.session.provenance import metric_of
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import read_json, reading

STUDENTS = {LAST: "last epoch", CHOSEN: "best epoch on validation"}
LEADING = 10
"""Arms that are shown at once; the others are shown after a click."""
_LEAST = 3
"""Fewer values than these have no interval: that of two is a dozen times as wide as their distance."""


@dataclass(frozen=True)
class Interval:
    """An estimate in percent or points with its 95 % interval, whose bounds are NaN if there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, estimate: dict[str, Any] | None) -> Interval | None:
        """Convert an estimate from the file, which is a share; None stays None.

        Where the mean is of few values there are no bounds.
        """
        if estimate is None:
            return None
        is_enough = estimate["interval"] and estimate["count"] >= _LEAST
        low, high = estimate["interval"] if is_enough else (math.nan, math.nan)
        return cls(100.0 * estimate["mean"], 100.0 * low, 100.0 * high)

    @property
    def is_known(self) -> bool:
        """Whether the bounds are known."""
        return math.isfinite(self.low)

    @property
    def is_clear_of_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.is_known and (self.low > 0.0 or self.high < 0.0)

    def in_words(self, sign: bool = True) -> str:
        """Format the interval as ``+0.31 (−0.02 to +0.64)``, or as ``94.31 (93.98 to 94.64)`` without a sign."""
        bounds = (self.low, self.high) if sign else (max(self.low, 0.0), min(self.high, 100.0))
        mean, low, high = map(signed if sign else number, (self.mean, *bounds))
        return f"{mean} ({low} to {high})" if self.is_known else mean


@dataclass(frozen=True)
class StudentMetrics:
    """The test metrics of one arm's students, in percent and points; None where unknown.

    ``difference`` is paired, to the baseline; ``regret`` is that to the best fixed temperature in hindsight.
    """

    mean: Interval | None
    difference: Interval | None
    regret: Interval | None


@dataclass(frozen=True)
class ArmRecord:
    """An arm on one task: test metrics by the keys of :data:`STUDENTS`, numbers of runs, and recorded histories.

    The cost ratio, over the baseline's cost, and the mean temperature are None if unknown.
    """

    name: str
    students: dict[str, StudentMetrics]
    count: int
    diverged: int
    failed: int
    cost_ratio: float | None
    mean_temperature: float | None
    histories: list[History]

    def curves(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the epochs ``(e,)`` that all runs have and a column of their histories ``(runs, e)``."""
        length = min((len(history["epoch"]) for history in self.histories), default=0)
        if length == 0:
            return np.empty(0), np.empty((0, 0))
        return self.histories[0]["epoch"][:length], np.stack([history[column][:length] for history in self.histories])


@dataclass(frozen=True)
class TaskRecord:
    """All arms on one task, sorted from the best mean of the last epoch's students to the worst.

    The metric is accuracy, or AP for detectors; ``best_fixed`` is the arm with the best fixed temperature in hindsight
    by student, or None.
    """

    name: str
    baseline: str
    metric: str
    best_fixed: dict[str, str | None]
    arms: list[ArmRecord]

    def arm(self, name: str) -> ArmRecord:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def compared(self) -> list[ArmRecord]:
        """The arms that can be compared with the baseline, the best first."""
        return [arm for arm in self.arms if arm.students["last"].difference and arm.name != self.baseline]

    @property
    def leading(self) -> list[ArmRecord]:
        """The first arms of these, with the best fixed temperature and the student alone among them."""
        needed = [arm for arm in self.compared if arm.name in (self.best_fixed["last"], ALONE)]
        others = [arm for arm in self.compared if arm not in needed]
        return [arm for arm in self.compared if arm in needed or arm in others[: LEADING - len(needed)]]


@dataclass(frozen=True)
class ArmOverTasks:
    """The last epoch's students of an arm over several tasks: regrets in points, from the best fixed T of each task.

    ``mean`` has the interval over the tasks, ``by_seeds`` that for these tasks alone. The cost ratio is over the
    baseline's. The mean and the worst task are None without any result, the cost where it is unknown.
    """

    name: str
    tasks: int
    mean: Interval | None
    by_seeds: Interval | None
    difference: Interval | None
    worst: tuple[str, float] | None
    at_or_above: int
    cost_ratio: float | None


@dataclass(frozen=True)
class ComparisonRecord:
    """The content of ``comparison.json``, its tasks that have results, and the errors of failed runs.

    ``over_tasks`` are all arms over several tasks, those with all tasks first and the best first.
    """

    content: dict[str, Any]
    tasks: list[TaskRecord]
    over_tasks: list[ArmOverTasks]
    planned_runs: int
    finished_runs: int
    errors: list[str]

    @property
    def complete(self) -> list[ArmOverTasks]:
        """The arms that have a result on every one of several tasks, the best first."""
        return [arm for arm in self.over_tasks if arm.tasks == len(self.tasks) and arm.mean is not None]

    @classmethod
    def read(cls, folder: Path) -> ComparisonRecord:
        """Read a comparison's folder, in which the folders of the runs may be missing."""
        path = folder / COMPARISON_FILE
        content = read_json(path, dict[str, Any])
        if content.get("version") != COMPARISON_VERSION:
            raise UsageError(f"{path} is not a comparison of version {COMPARISON_VERSION}")
        with reading(path):
            runs = content["runs"]
            without = {name for name, options in content.get("arms", {}).items() if _has_no_temperature(options)}
            tasks = [
                _task(name, statistics, without, lambda arm, task=name: _histories(folder, runs, task, arm))  # type: ignore[misc]
                for name, statistics in content["statistics"].items()
            ]
            errors = [f"{run['task']}/{run['arm']}/seed{run['seed']}: {run['error']}" for run in runs if run["error"]]
            over_tasks = _over_tasks(content.get("over_tasks"))
            return cls(content, tasks, over_tasks, int(content["planned_runs"]), len(runs), errors)


def _over_tasks(found: dict[str, Any] | None) -> list[ArmOverTasks]:
    if found is None:
        return []
    arms, count = found[LAST], len(found["tasks"])
    return [_arm_over_tasks(name, arms[name]) for name in sorted(arms, key=lambda name: rank(arms[name], count))]


def _arm_over_tasks(name: str, found: dict[str, Any]) -> ArmOverTasks:
    regret, worst = found["regret"], found["worst"]
    return ArmOverTasks(
        name,
        tasks=int(found["tasks"]),
        mean=Interval.of(regret),
        by_seeds=None if regret is None else Interval.of({**regret, "interval": regret["seeds_interval"], "count": 3}),
        difference=Interval.of(found["difference"]),
        worst=None if worst is None else (worst["task"], 100.0 * worst["regret"]),
        at_or_above=int(found["at_or_above"]),
        cost_ratio=_optional(found["cost_ratio"]),
    )


def _has_no_temperature(options: Any) -> bool:
    """Return whether an arm's students are trained without a teacher, whatever temperature was recorded."""
    return isinstance(options, dict) and options.get("method") == "cross_entropy"


def _task(
    name: str, statistics: dict[str, Any], without: set[str], histories: Callable[[str], list[History]]
) -> TaskRecord:
    """Read a task, of whose arms those ``without`` have no temperature."""
    arms = [_arm(arm, statistics, arm not in without, histories(arm)) for arm in statistics["runs"]]
    arms.sort(key=lambda arm: -(arm.students["last"].mean or Interval(-math.inf)).mean)
    best_fixed = {student: statistics[student]["best_fixed"] for student in STUDENTS}
    return TaskRecord(name, statistics["baseline"], metric_of(statistics), best_fixed, arms)


def _arm(name: str, statistics: dict[str, Any], has_temperature: bool, histories: list[History]) -> ArmRecord:
    runs = statistics["runs"][name]
    return ArmRecord(
        name,
        students={student: _student(statistics[student]["arms"][name]) for student in STUDENTS},
        count=int(runs["count"]),
        diverged=int(runs["diverged"]),
        failed=int(runs["failed"]),
        cost_ratio=_optional(runs["cost_ratio"]),
        mean_temperature=_optional(runs["mean_temperature"]) if has_temperature else None,
        histories=histories,
    )


def _student(metrics: dict[str, Any]) -> StudentMetrics:
    return StudentMetrics(
        mean=Interval.of(metrics["mean"]),
        difference=Interval.of(metrics["difference"]),
        regret=Interval.of(metrics["regret"]),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _histories(folder: Path, runs: list[dict[str, Any]], task: str, arm: str) -> list[History]:
    chosen = [folder / run["folder"] / HISTORY_FILE for run in runs if (run["task"], run["arm"]) == (task, arm)]
    return [read_history(path) for path in chosen if path.exists()]
