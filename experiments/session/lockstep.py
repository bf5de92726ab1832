"""Several sessions as one computation: runs that differ in nothing but the rule or policy at their temperatures."""

from __future__ import annotations

from collections.abc import Sequence

from agents.recording.lockstep import LockstepRecorder
from agents.recording.timing import PartTimer
from agents.rules.by_run import PolicyByRun
from experiments.session.session import DistillSession
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.parallel import create_parallel_runs, fastest_mode
from rlkd_env.runs.run import DistillationRun


def pays_off(sessions: Sequence[DistillSession]) -> bool:
    """Return whether their runs are computed faster as one than one after the other; measured once for such runs."""
    return fastest_mode(_template(sessions), len(sessions), one_seed=True) == "stacked"


def execute_together(sessions: Sequence[DistillSession]) -> None:
    """Make the runs of sessions that have the same settings, the seed included, but for who sets the temperatures.

    Each session writes what it would have written alone. Its students are the same up to rounding, and its times are an
    equal share of what all took. There are neither checkpoints nor curves.

    Raises:
        UsageError: if the runs cannot be stacked, or a policy cannot serve several runs.
    """
    runs, timer = create_parallel_runs(_template(sessions), len(sessions), "stacked"), PartTimer(len(sessions))
    for session in sessions:
        session.records.start_clock()
        session.records.count_by(timer)
        session.start()
    policy = PolicyByRun([session.phases.acting_policy() for session in sessions])
    hooks: list[RunHook] = [LockstepRecorder([session.records.shown for session in sessions], timer)]
    hooks += [watcher for session in sessions for watcher in session.watchers]
    for hook in hooks:
        runs.add_hook(hook)
    runs.reset([session.config.output.seed for session in sessions])
    with timer.part("environment"):
        runs.advance(policy)
    for session in sessions:
        session.records.stop_clock(len(sessions))
        session.save_results()


def _template(sessions: Sequence[DistillSession]) -> DistillationRun:
    """Return a run of what all have in common, without a policy of its own."""
    template = sessions[0].run.sibling()
    template.create_policy = None
    return template
