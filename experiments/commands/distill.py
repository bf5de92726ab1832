"""``rlkd distill``: from a teacher to a student, with an agent, a saved policy or a rule at the temperatures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tqdm import tqdm

from experiments.config import DistillConfig
from experiments.session.distributed import distill_shared
from experiments.session.folder import SUMMARY_FILE
from experiments.session.session import DistillSession, RunInterrupted
from experiments.session.summary import check_run_folder, print_summary, show_results, summarize
from rlkd_env.runs.build import build_run
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.utils.files import write_json
from rlkd_env.utils.torchrun import started_processes


def run_distill(config: DistillConfig) -> int:
    """Make a run and print its table, alone or together with the other processes that torchrun has started.

    Returns:
        The exit code: 0, 1 when the run diverged or a process was lost, 130 when it was interrupted.

    Raises:
        UsageError: if an option is invalid; the folder has not been touched then.
    """
    if started_processes() > 1:
        return distill_shared(config, prepare, _finish)
    if check_run_folder(config.folder, config.output):
        return 0
    return _finish(config, prepare(config), nullcontext)


def prepare(config: DistillConfig, processes: Processes | None = None) -> DistillSession:
    """Build the run and what drives it; nothing is written but, perhaps, a cached teacher."""
    bar: tqdm | None = None
    is_shown = config.output.progress and (processes is None or processes.is_first)

    def show_teacher(epoch: int, loss: float) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc="teacher", unit="epoch", disable=not is_shown)
        bar.update(epoch - bar.n)
        bar.set_postfix(loss=f"{loss:.4f}")

    run = build_run(config.run, on_teacher_epoch=show_teacher, processes=processes)
    if bar is not None:
        bar.close()
    return DistillSession(config, run)


def complete(
    session: DistillSession, leading: Callable[[DistillSession], AbstractContextManager[Any]] = nullcontext
) -> dict[str, Any]:
    """Make the run that is prepared, write its summary and return it.

    Args:
        session: of the run.
        leading: context in which the run is made, but not summarized.

    Raises:
        RunInterrupted: after Ctrl-C, with everything saved.
        UsageError: if the checkpoint to resume from is damaged or belongs to another run.
    """
    with leading(session):
        session.execute()
    show_results(session)
    summary = summarize(session)
    write_json(session.folder / SUMMARY_FILE, summary)
    return summary


def _finish(
    config: DistillConfig, session: DistillSession, leading: Callable[[DistillSession], AbstractContextManager[Any]]
) -> int:
    """Make the run that is prepared and tell what came of it."""
    folder, run = config.folder, session.run
    try:
        summary = complete(session, leading)
    except RunInterrupted:
        print(
            f"\ninterrupted at update {session.steps} of {run.total_steps}: "
            f"student, policy and checkpoint are in {folder}; go on with: rlkd distill --resume --out {folder}",
            file=sys.stderr,
        )
        return 130
    print_summary(summary, folder)
    if session.diverged:
        kept = f"the last good student is in {folder}" if session.selection.last_student else "there is no good student"
        print(
            f"rlkd: the run diverged at update {session.steps}: loss or logits are not finite; {kept}. "
            "Try a lower --learning-rate",
            file=sys.stderr,
        )
        return 1
    return 0
