"""``rlkd distill``: from a teacher to a student, with an agent, a saved policy or a rule at the temperatures."""

from __future__ import annotations

import sys

from tqdm import tqdm

from experiments.config import DistillConfig
from experiments.folder import SUMMARY_FILE, check_folder
from experiments.session import DistillSession, RunInterrupted
from experiments.summary import print_summary, summarize
from rlkd_env.config import build_run
from rlkd_env.files import read_json, write_json


def run_distill(config: DistillConfig) -> int:
    """Make a run and print its table.

    Returns:
        The exit code: 0, 1 when the run diverged, 130 when it was interrupted.

    Raises:
        UsageError: if an option is invalid; the folder has not been touched then.
    """
    folder, output = config.folder, config.output
    check_folder(folder, output.overwrite, output.resume)
    if output.resume and (folder / SUMMARY_FILE).is_file():
        print(f"the run in {folder} is finished already")
        print_summary(read_json(folder / SUMMARY_FILE), folder)
        return 0
    bar: tqdm | None = None

    def show_teacher(epoch: int, loss: float) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc="teacher", unit="epoch", disable=not output.progress)
        bar.update(epoch - bar.n)
        bar.set_postfix(loss=f"{loss:.4f}")

    run = build_run(config.run, on_teacher_epoch=show_teacher)
    if bar is not None:
        bar.close()
    session = DistillSession(config, run)
    try:
        session.execute()
    except RunInterrupted:
        print(
            f"\ninterrupted at update {session.steps} of {run.total_steps}: "
            f"student, policy and checkpoint are in {folder}; go on with: rlkd distill --resume --out {folder}",
            file=sys.stderr,
        )
        return 130
    summary = summarize(session)
    write_json(folder / SUMMARY_FILE, summary)
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
