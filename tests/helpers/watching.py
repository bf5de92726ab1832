"""Which hooks watch a run."""

from __future__ import annotations

from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun


def watch(run: DistillationRun, *hooks: RunHook) -> None:
    """Let these hooks watch a run, in place of those that do."""
    for hook in run.hooks:
        run.remove_hook(hook)
    for hook in hooks:
        run.add_hook(hook)
