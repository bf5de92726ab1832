"""``rlkd compare``: arms × tasks × seeds, each a run of ``rlkd distill``, and what they say."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from experiments.compare.analysis import analyze
from experiments.compare.executors import EXECUTORS, WorkersLost
from experiments.compare.over_tasks import analyze_over_tasks
from experiments.compare.plan import Plan, PlannedRun, check_folders, make_plan
from experiments.compare.rows import COMPARISON_FILE, COMPARISON_VERSION, CSV_FILE, Row, row_of, write_csv
from experiments.compare.table import print_over_tasks, print_plan, print_tables
from experiments.compare.together import as_units
from experiments.compare.work import Outcome, check_not_stopped, new_memo
from experiments.config import CompareConfig
from experiments.config.choice import AgentChoice
from experiments.next_command import tell_next
from experiments.session.folder import locked
from experiments.session.prepare import prepare
from experiments.session.provenance import versions
from experiments.signals import exit_code, tell_stop
from rlkd_env.errors import UsageError
from rlkd_env.runs.fingerprints import changed_parts
from rlkd_env.training.progress import progress_bar
from rlkd_env.utils.files import remove_leftovers, write_json
from rlkd_env.utils.memo import Memo
from rlkd_env.utils.notices import tell


def run_compare(config: CompareConfig) -> int:
    """Make the runs of a comparison that are not made yet, write its files and print its tables.

    The exit code is 0, 1 when a run failed or a worker died, or 130 when it was interrupted. Options of all arms are
    checked before anything is trained.
    """
    options, folder = config.comparison, config.folder
    plan = make_plan(config)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    check_folders(plan.runs, options.overwrite)
    if options.dry_run:
        return _tell_plan(config, plan)
    _check_arms(plan, new_memo())
    with locked(folder):
        return _compare(config, plan)


def _tell_plan(config: CompareConfig, plan: Plan) -> int:
    """Check the options of all arms, and say what would be made and how long it would take; nothing is written."""
    memo = new_memo()
    _check_arms(plan, memo)
    print_plan(plan, config.folder, config.comparison.threads, memo)
    return 0


def _check_arms(plan: Plan, memo: Memo) -> None:
    """Build every arm on every task once, which tells wrong options; arms that are finished are not built."""
    for run in plan.chosen:
        if isinstance(choice := run.config.agent.choice, AgentChoice):
            try:
                choice.check()  # which needs no data
            except UsageError as error:
                raise UsageError(f"arm {run.arm} on task {run.task}: {error}") from None
    checked: set[tuple[str, str]] = set()
    for run in plan.chosen:
        if (run.task, run.arm) in checked or run.summary():
            continue
        checked.add((run.task, run.arm))
        try:
            if prepare(run.config, memo=memo).test_set() is None:
                raise UsageError(f"the data of task {run.task} have no test images")
        except UsageError as error:
            raise UsageError(f"arm {run.arm} on task {run.task}: {error}") from None
        except Exception as error:  # of a user's own part, or for want of memory; the run will tell, others go on
            check_not_stopped(error)


def _compare(config: CompareConfig, plan: Plan) -> int:
    """Make the runs, with the folder to ourselves."""
    folder = config.folder
    remove_leftovers(folder)
    outcomes = _finished(plan.runs)
    missing = [run for run in plan.chosen if run.name not in outcomes]
    _write(config, plan, outcomes)
    due = len(outcomes) + len(missing)
    code, again = 0, f"go on with the same command; what is finished is in {folder}"
    try:
        _make(config, plan, missing, outcomes)
    except KeyboardInterrupt as stop:
        outcomes |= _finished(missing)  # with the run that was just ending
        tell_stop(f"interrupted after {len(outcomes)} of {due} runs: {again}")
        code = exit_code(stop)
    except WorkersLost:
        print(f"\nrlkd: error: worker processes end as soon as they start: {again}", file=sys.stderr)
        code = 1
    rows, statistics = _write(config, plan, outcomes)
    if code:
        return code
    print_tables(statistics)
    if over_tasks := analyze_over_tasks(statistics):
        print_over_tasks(over_tasks)
    for task in plan.tasks:
        if task not in statistics:
            print(f"{task}: no table, as the baseline {plan.baseline} is still missing")
    print(f"{len(outcomes)} of {len(plan.runs)} runs are finished; everything is in {folder}")
    tell_next("rlkd", "report", str(folder))
    _tell_exchanges(outcomes.values())
    failed = [row for row in rows if row.error]
    for row in failed:
        print(f"rlkd: {row.task}/{row.arm}/seed{row.seed} failed: {row.error}", file=sys.stderr)
    return 1 if failed else 0


def _finished(runs: Iterable[PlannedRun]) -> dict[str, Outcome]:
    return {run.name: Outcome(run, summary) for run in runs if (summary := run.summary())}


def _make(config: CompareConfig, plan: Plan, missing: list[PlannedRun], outcomes: dict[str, Outcome]) -> None:
    """Make the missing runs, and write the lines of all that are finished after each."""
    if not missing:
        return
    options = config.comparison
    units = as_units(missing, options.together)
    finished, count = [outcome.run for outcome in outcomes.values()], len(outcomes) + len(missing)
    total, initial = _epochs([*finished, *missing]), _epochs(finished)
    slowly = {"smoothing": 0.02, "mininterval": 1.0}
    bar = progress_bar("compare", "epoch", total, options.progress, initial=initial, **slowly)
    with bar, closing(EXECUTORS[options.executor](units, options, bar.update)) as making:
        bar.set_postfix(runs=f"{len(outcomes)}/{count}")
        for outcome in making:
            outcomes[outcome.run.name] = outcome
            bar.set_postfix(runs=f"{len(outcomes)}/{count}", last=outcome.run.name)
            write_csv(_rows(plan, outcomes), config.folder / CSV_FILE)


def _epochs(runs: Iterable[PlannedRun]) -> int:
    return sum(run.config.run.recipe.epochs for run in runs)


def _rows(plan: Plan, outcomes: dict[str, Outcome]) -> list[Row]:
    """Return the lines of the runs that are over, task by task, arm by arm, seed by seed."""
    ordered = [run for task in plan.tasks for arm in plan.arms for run in plan.runs_of(task, arm)]
    return [row_of(outcomes[run.name]) for run in ordered if run.name in outcomes]


def _write(config: CompareConfig, plan: Plan, outcomes: dict[str, Outcome]) -> tuple[list[Row], dict[str, Any]]:
    """Write both files, of what is finished; return the lines and the statistics."""
    rows = _rows(plan, outcomes)
    folders = {(run.task, run.arm, run.seed): run.config.folder.relative_to(config.folder) for run in plan.runs}
    finished = {(row.task, row.arm) for row in rows}
    tasks = [task for task in plan.tasks if (task, plan.baseline) in finished]
    statistics = analyze(rows, {task: plan.tasks[task].fixed_arms() for task in tasks}, plan.baseline)
    content = {
        "version": COMPARISON_VERSION,
        "settings": config.settings(),
        "tasks": {name: task.options | {"seeds": task.seeds} for name, task in plan.tasks.items()},
        "arms": plan.arms,
        "baseline": plan.baseline,
        "planned_runs": len(plan.runs),
        "runs": [asdict(row) | {"folder": folders[row.task, row.arm, row.seed].as_posix()} for row in rows],
        "statistics": statistics,
        "over_tasks": analyze_over_tasks(statistics),
        "versions": versions(),
    }
    write_csv(rows, config.folder / CSV_FILE)
    write_json(config.folder / COMPARISON_FILE, content)
    return rows, statistics


def _tell_exchanges(outcomes: Iterable[Outcome]) -> None:
    """Tell of arms whose runs have not all had the same teacher and data, which their settings do not show."""
    of_arms: dict[str, list[dict[str, str]]] = {}
    for outcome in outcomes:
        if outcome.summary is not None and "fingerprints" in outcome.summary:
            name = f"{outcome.run.task}/{outcome.run.arm}"
            of_arms.setdefault(name, []).append(outcome.summary["fingerprints"])
    for name, (first, *others) in of_arms.items():
        parts = dict.fromkeys(part for other in others for part in changed_parts(first, other))
        if parts:
            tell(f"not all runs of {name} were made with the same {' and '.join(parts)}")
