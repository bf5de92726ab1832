"""The processes that torchrun has started, and those that this one starts, which end with it; without PyTorch."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

_OF_PARENT = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
"""Signals that a terminal sends to all processes at once: the parent decides what they end."""
_WAITING = [*_OF_PARENT, signal.SIGTERM]
_LOOK = 0.5
"""Seconds between two looks at whether the parent is there."""


def started_processes() -> int:
    """Return how many processes torchrun has started for this program; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this is the one process, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def starting_children() -> Iterator[None]:
    """Start processes within; signals wait meanwhile, so that none meets a child that cannot take it yet."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_tracker_through_hangups() -> None:
    """Keep Python's own resource tracker running when the terminal closes, as it does at Ctrl-C, from its start on.

    It removes what processes share once they have ended; without it, those that end complain of what is gone.
    """
    ignored: tuple[int, ...] = getattr(resource_tracker, "_IGNORED_SIGNALS", ())
    if ignored and hasattr(signal, "SIGHUP"):  # blocked when it is started, and never unblocked
        resource_tracker._IGNORED_SIGNALS = (*ignored, signal.SIGHUP)  # type: ignore[attr-defined]


def leave_signals_to_parent() -> None:
    """Ignore, in a child, what a terminal sends to all processes, and take the signals that have waited."""
    for signum in _OF_PARENT:
        signal.signal(signum, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)


def end_with_parent(lifeline: Connection | None = None) -> None:
    """End this child, within a second, once its parent has ended or, if there is a lifeline, has closed its end.

    Nothing is ever written to a lifeline. It is a thread that looks, which a computation does not keep from looking.
    """
    parent = multiprocessing.parent_process()
    pid = os.getppid() if parent is None or parent.pid is None else parent.pid
    threading.Thread(target=_watch, args=(pid, lifeline), daemon=True).start()


def begin_worker(lifeline: Connection, prepare: str, *arguments: Any) -> None:
    """Begin a worker of a pool that ends with its parent, and call the function ``module:name`` with the arguments.

    Its module is imported only then, as that may take seconds, in which the parent may end.
    """
    leave_signals_to_parent()
    end_with_parent(lifeline)
    module, _, name = prepare.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)


def _watch(parent: int, lifeline: Connection | None) -> None:
    while os.getppid() == parent:
        if lifeline is None:
            time.sleep(_LOOK)
        elif lifeline.poll(_LOOK):
            break
    os._exit(1)
