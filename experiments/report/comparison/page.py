"""The report of a comparison as a page."""

from __future__ import annotations

from experiments.compare.arms import ALONE
from experiments.report.comparison.figures import draw_accuracies, draw_cost, draw_differences, draw_temperatures
from experiments.report.comparison.interpretation import describe, describe_over_tasks
from experiments.report.comparison.loading import (
    LEADING,
    STUDENTS,
    ArmOverTasks,
    ArmRecord,
    ComparisonRecord,
    Interval,
    TaskRecord,
)
from experiments.report.comparison.regrets_figure import draw_regrets
from experiments.report.formatting import signed
from experiments.report.page import Page, Section, Table, Tile, settings_table


def comparison_page(comparison: ComparisonRecord) -> Page:
    """Return the report of a comparison's finished runs."""
    tasks, content = comparison.tasks, comparison.content
    sections = [_task_section(task, is_only=len(tasks) == 1) for task in tasks]
    tiles = [tile for task in tasks for tile in _tiles(task)]
    if comparison.over_tasks:
        tiles = _tiles_over_tasks(comparison)
        regrets, table = draw_regrets(comparison, LEADING), _table_over_tasks(comparison)
        folded = [draw_regrets(comparison)] if len(comparison.complete) > LEADING else []
        sections.insert(0, Section("Over all tasks", [regrets], table, folded=folded, folded_title="All arms"))
    names, of = list(content.get("arms") or {}), list(content.get("tasks") or {})
    return Page(
        kind="comparison",
        title=f"{len(names)} ways to set temperatures on {of[0] if len(of) == 1 else f'{len(of)} tasks'}",
        subtitle=f"{comparison.finished_runs} of {comparison.planned_runs} runs; tasks: {', '.join(of)}",
        warnings=_warnings(comparison),
        tiles=tiles,
        interpretation=describe_over_tasks(comparison) or [describe(task) for task in tasks],
        sections=sections,
        notes=_missing(comparison),
        tables=[
            settings_table("Arms", content.get("arms") or {}),
            settings_table("Settings", content.get("settings") or {}),
            settings_table("Versions", content.get("versions") or {}),
        ],
    )


def _warnings(comparison: ComparisonRecord) -> list[str]:
    warnings = []
    if comparison.finished_runs < comparison.planned_runs:
        missing = comparison.planned_runs - comparison.finished_runs
        warnings.append(
            f"This comparison has not finished: {missing} of {comparison.planned_runs} runs are missing. Arms with "
            "fewer seeds are compared on the seeds that they have. The command that started it continues it."
        )
    if not comparison.tasks:
        warnings.append("No run of the baseline has finished, so nothing can be compared yet.")
    return [*warnings, *(f"A run failed: {error}" for error in comparison.errors)]


def _task_section(task: TaskRecord, is_only: bool) -> Section:
    """Return what is shown of a task, with the page's one sentence on it if there are several."""
    return Section(
        task.name,
        [draw_differences(task), draw_cost(task)],
        _result_table(task),
        text="" if is_only else describe(task),
        folded=[draw_differences(task, of_all=True), draw_accuracies(task), draw_temperatures(task)],
        folded_title="All arms, and curves",
        is_closed=not is_only,
    )


def _tiles_over_tasks(comparison: ComparisonRecord) -> list[Tile]:
    """Return tiles of the arm with the best mean regret, of the one with the least loss, and of the baseline."""
    arms, tiles = comparison.complete, []
    if not arms:
        return []
    least = max(arms, key=lambda arm: arm.worst[1] if arm.worst else float("-inf"))
    named = [(arms[0], "highest mean"), (least, "least loss on its worst task")]
    named += [(arm, "baseline") for arm in arms if arm.name == comparison.content.get("baseline")]
    for arm, remark in named:
        assert arm.mean is not None
        worst = f"; worst {signed(arm.worst[1])} on {arm.worst[0]}" if arm.worst else ""
        tiles.append(Tile(arm.name, f"{signed(arm.mean.mean)} points", f"{remark}{worst}"))
    return tiles


def _tiles(task: TaskRecord) -> list[Tile]:
    """Return tiles of the baseline, the best arm and the best fixed temperature."""
    remarks: dict[str, list[str]] = {}
    best, fixed = task.arms[0].name, task.best_fixed["last"]
    for name, remark in ((task.baseline, "baseline"), (best, "highest mean"), (fixed, "best fixed T in hindsight")):
        if name is not None:
            remarks.setdefault(name, []).append(remark)
    means = {name: mean for name in remarks if (mean := task.arm(name).students["last"].mean) is not None}
    tiles = []
    for name, mean in means.items():
        bounds = mean.in_words(sign=False).partition(" (")[2].rstrip(")") or "too few seeds for an interval"
        tiles.append(Tile(name, f"{mean.mean:.2f} %", f"{bounds}; {', '.join(remarks[name])}"))
    return tiles


def _table_over_tasks(comparison: ComparisonRecord) -> Table:
    baseline = f"over {comparison.content.get('baseline')}"
    minor = ("by seeds alone", "at or above", baseline, "cost")
    columns = ["arm", "mean over the best fixed, points", minor[0], "worst task", *minor[1:]]
    rows = [_row_over_tasks(arm) for arm in comparison.over_tasks]
    return Table(
        f"Last epoch, over {len(comparison.tasks)} tasks",
        columns,
        [[text for text, _ in row] for row in rows],
        [[key for _, key in row] for row in rows],
        "Points over the best fixed temperature of each task in hindsight: the mean of the tasks' means, with the 95 % "
        "interval (Student's t) over the tasks, for further tasks like these; by seeds alone is the interval for these "
        "tasks. Even an arm as good as the best fixed temperature is a little below zero, because that is chosen from "
        "these results. At or above: tasks on which an arm is not below zero, of those it was made on; arms that lack "
        "tasks come last. Cost is the geometric mean over the tasks.",
        minor=minor,
        kept=(str(comparison.content.get("baseline")), ALONE),
    )


def _row_over_tasks(arm: ArmOverTasks) -> list[Cell]:
    by_seeds: Cell = ("–", None)
    if arm.by_seeds is not None and arm.by_seeds.is_known:
        by_seeds = (f"{signed(arm.by_seeds.low)} to {signed(arm.by_seeds.high)}", arm.by_seeds.low)
    return [
        (arm.name, arm.name),
        _estimate(arm.mean),
        by_seeds,
        ("–", None) if arm.worst is None else (f"{signed(arm.worst[1])} ({arm.worst[0]})", arm.worst[1]),
        (f"{arm.at_or_above} of {arm.tasks}", arm.at_or_above),
        _estimate(arm.difference),
        ("–", None) if arm.cost_ratio is None else (f"{arm.cost_ratio:.2f} ×", arm.cost_ratio),
    ]


def _result_table(task: TaskRecord) -> Table:
    best = task.best_fixed["last"]
    columns = ["arm", f"{task.metric}, last epoch, %", f"over {task.baseline}"]
    columns += [] if best is None else [f"over best fixed ({best})"]
    minor = ["cost", "mean T", f"{task.metric}, {STUDENTS['chosen']}, %", "runs"]
    rows = [_row(arm, task) for arm in task.arms]
    return Table(
        f"Test {task.metric}",
        [*columns, *minor],
        [[text for text, _ in row] for row in rows],
        [[key for _, key in row] for row in rows],
        "Means over the seeds with 95 % intervals in brackets, which fewer than three seeds do not have. Differences "
        "are in points and paired: runs of a seed start from the same student and see the same batches. The best fixed "
        "temperature is chosen in hindsight from these results. Cost is the median time of a run over the baseline's, "
        "in CPU time if known. Click a column's head to sort.",
        minor=[*columns[3:], *minor],
        kept=[name for name in (task.baseline, best, ALONE) if name is not None],
    )


Cell = tuple[str, float | str | None]  # the text and the value that it is sorted by


def _row(arm: ArmRecord, task: TaskRecord) -> list[Cell]:
    last, chosen = (arm.students[student] for student in STUDENTS)
    is_baseline = arm.name == task.baseline
    marks = [f"{count} {kind}" for count, kind in ((arm.diverged, "diverged"), (arm.failed, "failed")) if count]
    cells = [
        (arm.name, arm.name),
        _estimate(last.mean, sign=False),
        ("baseline", 0.0) if is_baseline else _estimate(last.difference),
    ]
    if task.best_fixed["last"] is not None:
        cells.append(("best fixed", 0.0) if arm.name == task.best_fixed["last"] else _estimate(last.regret))
    cells += [
        ("–", None) if arm.cost_ratio is None else (f"{arm.cost_ratio:.2f} ×", arm.cost_ratio),
        ("–", None) if arm.mean_temperature is None else (f"{arm.mean_temperature:.2f}", arm.mean_temperature),
        _estimate(chosen.mean, sign=False),
        (", ".join([str(arm.count), *marks]), arm.count),
    ]
    return cells


def _estimate(estimate: Interval | None, sign: bool = True) -> Cell:
    return ("–", None) if estimate is None else (estimate.in_words(sign), estimate.mean)


def _missing(comparison: ComparisonRecord) -> list[str]:
    recorded = sum(len(arm.histories) for task in comparison.tasks for arm in task.arms)
    counted = sum(arm.count - arm.failed for task in comparison.tasks for arm in task.arms)
    if recorded < counted:
        return [f"Curves show {recorded} of {counted} runs; the others have no history."]
    return []
