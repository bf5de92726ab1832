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


def print_plan(plan: Plan, folder: Path, threads: int, jobs: int, memo: Memo) -> None:
    """Print a line for every task: its runs, those that are missing, and the time that these would take one by one.

    The time is that of plain updates of the baseline, measured here, and so leaves out what agents and other methods
    add, and evaluations.
    """
    console = Console()
    if not console.is_terminal:
        console.width = 160
    table = Table(box=box.SIMPLE, title=f"what would be made in {folder}")
    for column in ("task", "arms", "seeds", "runs", "finished", "to make", "updates of each", "an update", "in all"):
        table.add_column(column, justify="left" if column == "task" else "right")
    missing, total = {run.name for run in plan.chosen if not run.summary()}, 0.0
    for name, task in plan.tasks.items():
        runs = [run for run in plan.runs if run.task == name]
        to_make = sum(run.name in missing for run in runs)
        finished = sum(run.summary() is not None for run in runs)
        cells = [name, str(len({run.arm for run in runs})), str(task.seeds), str(len(runs)), str(finished), str(to_make)]
        if to_make:
            with using_threads(threads):
                run = prepare(plan.runs_of(name, plan.baseline)[0].config, writes=False, memo=memo).run
                seconds = seconds_per_step(create_parallel_runs(run, 1, "serial"), one_seed=True)
            total += to_make * run.total_steps * seconds
            cells += [f"{run.total_steps:,}", f"{1e3 * seconds:.2f} ms", tqdm.format_interval(to_make * run.total_steps * seconds)]
        table.add_row(*cells)
    console.print(table)
    at_once = "with these options as many at a time as there are cores" if jobs == 0 else f"with these options {jobs} at a time"
    console.print(
        f"runs to make: {len(missing)}, which take about {tqdm.format_interval(total)} one by one ({at_once}), as far as "
        "the updates of the baseline tell: what agents and methods add, and evaluations, come on top",
        highlight=False,
    )
