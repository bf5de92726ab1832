"""Executes a single run of a comparison, from its checkpoint if it was interrupted, or says how long it would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.compare.plan import PlannedRun
from experiments.config import DistillConfig
from experiments.session.folder import CHECKPOINT_FOLDER
from experiments.session.prepare import prepare
from experiments.session.summary import complete
from experiments.signals import raised
from experiments.threads import using_threads
from rlkd_env.errors import UsageError
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.parallel import seconds_alone
from rlkd_env.utils.memo import Memo

CountEpochs = Callable[[int], None]  # told the number of further epochs that are over, to estimate the remaining time


@dataclass(frozen=True)
class Outcome:
    """The summary of a run, also of one that diverged; or the error for which it failed."""

    run: PlannedRun
    summary: dict[str, Any] | None
    error: str | None = None


class EpochCounter(RunHook):
    """Counts the finished epochs of a run; the remaining ones of a run that ends early count at its end."""

    def __init__(self, total: int, count: CountEpochs) -> None:
        self._total, self._left, self._count = total, total, count

    def on_epoch_end(self, run: object) -> None:  # noqa: ARG002
        """Count one epoch."""
        self._tell(min(1, self._left))

    def take_back(self) -> None:
        """Count nothing of what was counted, because the run begins anew."""
        self._tell(self._left - self._total)

    def end(self) -> None:
        """Count the remaining epochs."""
        self._tell(self._left)

    def _tell(self, epochs: int) -> None:
        self._left -= epochs
        self._count(epochs)


def new_memo() -> Memo:
    """Return what keeps data and teachers for the runs of a process; enough for nine tasks."""
    return Memo(size=40)


def make_run(run: PlannedRun, threads: int, count: CountEpochs, memo: Memo | None = None) -> Outcome:
    """Execute a run that is not finished in its folder, with a number of PyTorch threads."""
    counter = EpochCounter(run.config.run.recipe.epochs, count)
    with using_threads(threads):
        try:
            outcome = Outcome(
                run, _resume(run, counter, memo) or _make(run.config.replaced(overwrite=True), counter, memo)
            )
        except Exception as error:  # a user's network or data may raise anything; the other runs continue
            check_not_stopped(error)
            outcome = Outcome(run, None, f"{type(error).__name__}: {' '.join(str(error).split())}")
    counter.end()
    return outcome


def measure_update(run: PlannedRun, threads: int, memo: Memo | None = None) -> tuple[int, float]:
    """Return how many updates a run has, and how many seconds one takes with a number of PyTorch threads."""
    with using_threads(threads):
        built = prepare(run.config, writes=False, memo=memo).run
        return built.total_steps, seconds_alone(built)


def check_not_stopped(error: Exception) -> None:
    """Raise what a signal has asked for, if a library has made this error of it; nothing else may come after it."""
    if (stop := raised()) is not None:
        raise stop from error


def _resume(run: PlannedRun, counter: EpochCounter, memo: Memo | None) -> dict[str, Any] | None:
    """Resume a run from its checkpoint, or return None if there is none that can be read."""
    if run.has_other_settings() or not (run.config.folder / CHECKPOINT_FOLDER).is_dir():
        return None
    try:
        return _make(run.config.replaced(resume=True), counter, memo)
    except UsageError:
        return None


def _make(config: DistillConfig, counter: EpochCounter, memo: Memo | None) -> dict[str, Any]:
    session = prepare(config, memo=memo)
    session.watchers.append(counter)
    return complete(session)
