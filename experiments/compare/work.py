"""What a worker does: one run of a comparison, from its own checkpoint where it was broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from experiments.compare.plan import PlannedRun
from experiments.config import DistillConfig
from experiments.session.checkpoints import RunInterrupted
from experiments.session.folder import CHECKPOINT_FOLDER
from experiments.session.session import prepare
from experiments.session.summary import complete
from rlkd_env.errors import UsageError
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun

CountEpochs = Callable[[int], None]
"""Is told how many more epochs are over, for the time left."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        run: that was made.
        summary: of its folder; None if it failed.
        error: why it failed, in one line; None if it did not. One that diverged has not failed: its summary says so.
    """

    run: PlannedRun
    summary: dict[str, Any] | None
    error: str | None = None


class EpochCounter(RunHook):
    """Tells how many epochs of a run are over; those of one that ends early count at its end.

    Args:
        total: epochs of the run.
        count: is told.
    """

    def __init__(self, total: int, count: CountEpochs) -> None:
        self._left, self._count = total, count

    def on_epoch_end(self, run: DistillationRun) -> None:  # noqa: ARG002
        """Count one epoch."""
        self._tell(min(1, self._left))

    def end(self) -> None:
        """Count what is left."""
        self._tell(self._left)

    def _tell(self, epochs: int) -> None:
        self._left -= epochs
        self._count(epochs)


def make_run(run: PlannedRun, threads: int, count: CountEpochs) -> Outcome:
    """Make a run into its folder.

    Args:
        run: that is not finished.
        threads: that PyTorch may use meanwhile.
        count: is told the epochs.

    Raises:
        RunInterrupted: after Ctrl-C, with everything saved.
    """
    counter = EpochCounter(run.config.run.recipe.epochs, count)
    with using_threads(threads):
        try:
            outcome = Outcome(run, _resume(run, counter) or _make(_with(run, overwrite=True), counter))
        except RunInterrupted:
            raise
        except Exception as error:  # the user's network or data may raise anything; the other runs go on
            outcome = Outcome(run, None, f"{type(error).__name__}: {' '.join(str(error).split())}")
    counter.end()
    return outcome


def _resume(run: PlannedRun, counter: EpochCounter) -> dict[str, Any] | None:
    """Go on from a run's checkpoint; return None where there is none that can be read."""
    if run.has_other_settings() or not (run.config.folder / CHECKPOINT_FOLDER).is_dir():
        return None
    try:
        return _make(_with(run, resume=True), counter)
    except UsageError:
        return None


def _with(run: PlannedRun, overwrite: bool = False, resume: bool = False) -> DistillConfig:
    return replace(run.config, output=replace(run.config.output, overwrite=overwrite, resume=resume))


def _make(config: DistillConfig, counter: EpochCounter) -> dict[str, Any]:
    session = prepare(config)
    session.watchers.append(counter)
    return complete(session)


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads of the CPU, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
