"""The tables of a comparison, as printed in a terminal: of what is planned, and of what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from experiments.compare.over_tasks import rank
from experiments.compare.plan import Plan
from experiments.compare.rows import CHOSEN, LAST
from experiments.compare.work import measure_update
from rlkd_env.utils.memo import Memo

_TITLES = {LAST: "last epoch", CHOSEN: "best epoch on validation"}
_PLANNED = ("task", "arms", "seeds", "runs", "finished", "to make", "updates of each", "an update", "in all")
_WIDTH = 160
"""Columns of text where the output is a file, which has no width."""


def print_plan(plan: Plan, folder: Path, threads: int, memo: Memo) -> None:
    """Print a line for every task: its runs, those that are missing, and the time that these would take one by one.

    The time is that of plain updates of the baseline, measured here, and so leaves out what agents and other methods
    add, and evaluations.
    """
    console = _console()
    table = Table(box=box.SIMPLE, title=f"what would be made in {folder}")
    for column in _PLANNED:
        table.add_column(column, justify="left" if column == "task" else "right")
    finished, total = {run.name for run in plan.runs if run.summary()}, 0.0
    missing = {run.name for run in plan.chosen} - finished
    for name, task in plan.tasks.items():
        names = {run.name for run in plan.runs if run.task == name}
        to_make = len(names & missing)
        cells = [name, *map(str, (len(task.arms), task.seeds, len(names), len(names & finished), to_make))]
        if to_make:
            updates, seconds = measure_update(plan.runs_of(name, plan.baseline)[0], threads, memo)
            in_all = to_make * updates * seconds
            cells += [f"{updates:,}", f"{1e3 * seconds:.2f} ms", tqdm.format_interval(in_all)]
            total += in_all
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"runs to make: {len(missing)}, which take about {tqdm.format_interval(total)} one by one, as far as the "
        "updates of the baseline tell: what agents and methods add, and evaluations, come on top; the same command "
        "without --dry-run makes them",
        highlight=False,
    )


def print_tables(statistics: dict[str, Any]) -> None:
    """Print tables of the last epoch's and the chosen students for every task of an analysis."""
    console = _console()
    for task, of_task in statistics.items():
        for student, title in _TITLES.items():
            console.print(_table(f"{task}, {title}: test {of_task['metric']} in %", of_task, of_task[student]))
        console.print(_note(of_task), highlight=False)


def print_over_tasks(over_tasks: dict[str, Any]) -> None:
    """Print a table of all arms over all tasks, from the best mean regret to the worst, for the last epoch's students.

    Arms that lack tasks come last.
    """
    console = _console()
    count, arms = len(over_tasks["tasks"]), over_tasks[LAST]
    table = Table(box=box.SIMPLE, title=f"{count} tasks, last epoch: points over the best fixed T of each in hindsight")
    columns = ("arm", "mean", "by seeds alone", "worst", "at or above", "over the baseline", "cost", "tasks")
    for column in columns:
        table.add_column(column, justify="left" if column in ("arm", "worst") else "right", no_wrap=column == "arm")
    for arm in sorted(arms, key=lambda name: rank(arms[name], count)):
        found = arms[arm]
        worst, cost = found["worst"], found["cost_ratio"]
        by_seeds = None if found["regret"] is None else found["regret"]["seeds_interval"]
        table.add_row(
            arm,
            _estimate(found["regret"]),
            "–" if by_seeds is None else "{:+.2f} to {:+.2f}".format(*(100 * bound for bound in by_seeds)),
            "–" if worst is None else f"{100 * worst['regret']:+.2f} {worst['task']}",
            f"{found['at_or_above']} of {found['tasks']}",
            _estimate(found["difference"]),
            "–" if cost is None else f"{cost:.2f} ×",
            str(found["tasks"]),
        )
    console.print(table)
    console.print(
        "mean: of the tasks' means; in brackets the 95 % interval (Student's t) over tasks, for further tasks like "
        "these. by seeds alone: the interval for these tasks. The best fixed T of a task is chosen in hindsight from "
        "these results, so that even an equal arm is a little below it. cost: geometric mean over tasks.",
        highlight=False,
    )


def _console() -> Console:
    """Return what tables are printed to."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def _table(title: str, of_task: dict[str, Any], of_student: dict[str, Any]) -> Table:
    baseline, best = of_task["baseline"], of_student["best_fixed"]
    table = Table(box=box.SIMPLE, title=title)
    columns = ["arm", "mean", f"over {baseline}", f"better than {baseline}"]
    columns += [] if best is None else [f"over best fixed ({best})"]
    for column in (*columns, "cost", "mean T"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=column == "arm")
    arms = of_student["arms"]
    for arm in sorted(arms, key=lambda name: -(arms[name]["mean"] or {"mean": -1.0})["mean"]):
        metrics, runs = arms[arm], of_task["runs"][arm]
        chance = metrics["probability_of_improvement"]
        cells = [
            arm + _marks(runs),
            _estimate(metrics["mean"], sign=False),
            "" if arm == baseline else _estimate(metrics["difference"]),
            "" if arm == baseline or chance is None else f"{chance:.0%}",
        ]
        if best is not None:
            cells.append("" if arm == best else _estimate(metrics["regret"]))
        cells += ["–" if runs["cost_ratio"] is None else f"{runs['cost_ratio']:.2f} ×"]
        cells += ["–" if runs["mean_temperature"] is None else f"{runs['mean_temperature']:.2f}"]
        table.add_row(*cells)
    return table


def _estimate(estimate: dict[str, Any] | None, sign: bool = True) -> str:
    """Format an estimate and its interval in percent, such as ``+0.31 (-0.02 to +0.64)``."""
    if estimate is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    mean = format(100 * estimate["mean"], form)
    if estimate["interval"] is None:
        return mean
    low, high = (format(100 * bound, form) for bound in estimate["interval"])
    return f"{mean} ({low} to {high})"


def _marks(runs: dict[str, Any]) -> str:
    marks = [f"{runs[kind]} {kind}" for kind in ("diverged", "failed") if runs[kind]]
    return f" ({', '.join(marks)})" if marks else ""


def _note(of_task: dict[str, Any]) -> str:
    counts = {runs["count"] for runs in of_task["runs"].values()}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return (
        f"Seeds per arm: {seeds}, paired: same first student, same batches. In brackets are 95 % intervals "
        "(Student's t); bootstrap intervals, which are in comparison.json, are too narrow for so few seeds. The best "
        "fixed temperature is chosen in hindsight from these results. cost: median time of a run over the baseline's, "
        "on a CPU the CPU time of its process; runs that share a machine still disturb each other a little."
    )
