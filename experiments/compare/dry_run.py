"""What a comparison would make, and how long that would take: ``rlkd compare --dry-run``."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from experiments.compare.plan import Plan
from experiments.session.prepare import prepare
from experiments.threads import using_threads
from rlkd_env.runs.parallel import create_parallel_runs, seconds_per_step
from rlkd_env.utils.memo import Memo

_COLUMNS = ("task", "arms", "seeds", "runs", "finished", "to make", "updates of each", "an update", "in all")


def print_plan(plan: Plan, folder: Path, threads: int, memo: Memo) -> None:
    """Print a line for every task: its runs, those that are missing, and the time that these would take one by one.

    The time is that of plain updates of the baseline, measured here, and so leaves out what agents and other methods
    add, and evaluations.
    """
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file has no width
    table = Table(box=box.SIMPLE, title=f"what would be made in {folder}")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "task" else "right")
    missing, total = {run.name for run in plan.chosen if not run.summary()}, 0.0
    for name, task in plan.tasks.items():
        runs = [run for run in plan.runs if run.task == name]
        finished = sum(run.summary() is not None for run in runs)
        to_make = sum(run.name in missing for run in runs)
        arms = len({run.arm for run in runs})
        cells = [name, *map(str, (arms, task.seeds, len(runs), finished, to_make))]
        if to_make:
            updates, seconds = _measure(plan, name, threads, memo)
            in_all = to_make * updates * seconds
            cells += [f"{updates:,}", f"{1e3 * seconds:.2f} ms", tqdm.format_interval(in_all)]
            total += in_all
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"runs to make: {len(missing)}, which take about {tqdm.format_interval(total)} one by one, as far as the "
        "updates of the baseline tell: what agents and methods add, and evaluations, come on top",
        highlight=False,
    )


def _measure(plan: Plan, task: str, threads: int, memo: Memo) -> tuple[int, float]:
    """Return how many updates a run of a task has, and how long one of its baseline takes."""
    with using_threads(threads):
        run = prepare(plan.runs_of(task, plan.baseline)[0].config, writes=False, memo=memo).run
        return run.total_steps, seconds_per_step(create_parallel_runs(run, 1, "serial"), one_seed=True)
