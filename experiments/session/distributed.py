"""``torchrun -m experiments distill``: one run that several processes share; the first of them leads."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from experiments.config import DistillConfig
from experiments.session.checkpoints import RunInterrupted
from experiments.session.prepare import prepare
from experiments.session.session import DistillSession
from experiments.session.summary import check_run_folder
from experiments.signals import ignore_signals
from rlkd_env.errors import UsageError
from rlkd_env.runs.distributed.processes import Processes, ProcessLost
from rlkd_env.runs.distributed.run import DistributedRun

Finish = Callable[[DistillSession, Callable[[DistillSession], AbstractContextManager[Any]]], int]


def distill_together(config: DistillConfig, finish: Finish) -> int:
    """Make a run together with the other processes that torchrun has started.

    Only the first process writes, draws and prints, and its config is the one that counts. The others do what its run
    does.

    The run is made by ``finish`` within the context that is its second argument; it returns the exit code.
    """
    processes = Processes.join(config.run.engine.device)
    _end_when_told(processes)
    if not processes.is_first:
        warnings.simplefilter("ignore")  # the first process has them too
    try:
        with processes.noticing_losses():
            config = processes.tell_object(config)
            with processes.together():
                processes.check_batch(config.run.recipe.batch_size)
                is_finished = check_run_folder(config.folder, config.output) if processes.is_first else False
            if processes.tell_object(is_finished):
                return 0
            session = _prepare_by_turns(config, processes)
            if processes.is_first:
                return finish(session, _leading)
            return _follow(session, processes)
    except UsageError:
        processes.leave()
        raise
    except ProcessLost as lost:
        if processes.is_first_to_notice():
            print(
                f"rlkd: error: another process of the run has ended or does not answer ({lost}); the last checkpoint "
                f"is in {config.folder}: go on with --resume",
                file=sys.stderr,
            )
        end_at_once(1)


def _prepare_by_turns(config: DistillConfig, processes: Processes) -> DistillSession:
    """Build run and session, in the first process of each machine before the others, for which it fills the caches."""
    session: DistillSession | None = None
    for is_first_turn in (True, False):
        with processes.together():
            if (processes.local_rank == 0) == is_first_turn:
                session = prepare(config, processes=processes)
    assert session is not None
    return session


def _follow(session: DistillSession, processes: Processes) -> int:
    _leave_signals_to_first(processes)
    run = session.run
    assert isinstance(run, DistributedRun)
    try:
        run.follow()
    except UsageError as error:  # such as an image of its share that cannot be read: the first one does not know
        print(f"rlkd: error: process {processes.rank}: {' '.join(str(error).split())}", file=sys.stderr)
        end_at_once(2)
    processes.leave()
    return 0


@contextmanager
def _leading(session: DistillSession) -> Iterator[None]:
    """Release the other processes when the training is over, before the summary, which does not need them."""
    run = session.run
    assert isinstance(run, DistributedRun)
    try:
        yield
    except (RunInterrupted, UsageError):
        run.stop()
        run.processes.leave()
        raise
    run.stop()
    run.processes.leave()


def end_at_once(code: int) -> NoReturn:
    """End the process without an orderly shutdown, which would wait for processes that are gone or elsewhere.

    A process that has finished ends this way too: gloo's threads outlive the connections, and a thread that still holds
    a tensor when Python has ended aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_signals_to_first(processes: Processes) -> None:
    """Ignore what asks to stop: the first process stops at a safe point and tells the others.

    If it is the first one that has died, gloo says so. A wait for a GPU does not end by itself.
    """
    ignore_signals()
    if processes.backend != "gloo":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_when_told(processes: Processes) -> None:
    """Turn the signal that torchrun sends when a process dies into an error that says so.

    Only with gloo, between CPUs: a wait for a GPU cannot be interrupted, and the signal ends the process at once.
    """

    def end(signum: int, frame: Any) -> None:  # noqa: ARG001
        raise ProcessLost("torchrun ends this one")

    if processes.backend == "gloo":
        signal.signal(signal.SIGTERM, end)
