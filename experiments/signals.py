"""Signals that ask a command to stop: Ctrl-C, a scheduler's SIGTERM, and the SIGHUP of a terminal that closes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

_ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_told: list[int] = []
"""The signal that has asked this process to stop, once one has been raised."""
_lines: list[str] = []
"""What has been printed of the command's stop: one line, however often somebody presses Ctrl-C."""


class Stopped(KeyboardInterrupt):
    """A signal asks the process to stop."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(signum)
        self.signum = signum


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a process that was stopped, which by convention is 128 and the signal's number."""
    return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)


def raised() -> Stopped | None:
    """Return what a signal has raised in this process, even if other code has made another error of it."""
    return Stopped(_told[0]) if _told else None


def begin_command() -> None:
    """Begin a command, of whose stop nothing has been told yet."""
    _lines.clear()


def tell_stop(message: str) -> None:
    """Print what a stop has left as a line, behind the ^C that a terminal shows; a command has one such line."""
    if not _lines:
        print(f"\n{message}" if sys.stderr.isatty() else message, file=sys.stderr)
        _lines.append(message)


def end_on_signals() -> None:
    """Let signals end the process at once from now on, in a line, as there is nothing to save yet."""
    for signum in _heeded():
        signal.signal(signum, lambda signum, _: _end(signum))


def raise_on_signals() -> None:
    """Raise :class:`Stopped` at the first signal from now on; one that comes while it is raised ends the process."""
    for signum in _heeded():
        signal.signal(signum, _raise)
    sys.unraisablehook = _end_if_stopped


def ignore_signals() -> None:
    """Let no signal disturb the end of the process."""
    for signum in _ASKING:
        signal.signal(signum, signal.SIG_IGN)


class StopRequest:
    """A wish to stop, which is true once a signal has asked for it. A loop looks at it where it can stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def ask(self, signum: int = signal.SIGINT) -> None:
        """Ask to stop."""
        self.signum = self.signum or signum

    def error(self) -> Stopped:
        """Return what is raised where the loop stops."""
        return Stopped(self.signum or signal.SIGINT)

    @contextmanager
    def listening(self, is_patient: bool = False) -> Iterator[None]:
        """Take the first signal within as the wish; the next one has its usual effect, unless the loop is patient.

        Outside of the main thread, which alone receives signals, this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(signum: int, frame: Any) -> None:  # noqa: ARG001
            self.ask(signum)
            if not is_patient:
                _restore(before)

        before = {signum: signal.getsignal(signum) for signum in _heeded()}
        for signum in before:
            signal.signal(signum, note)
        try:
            yield
        finally:
            _restore(before)


def _heeded() -> list[int]:
    """Return the signals that somebody, such as nohup, has not asked us to ignore."""
    return [signum for signum in _ASKING if signal.getsignal(signum) not in (signal.SIG_IGN, None)]


def _restore(handlers: Mapping[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def _raise(signum: int, frame: Any) -> None:  # noqa: ARG001
    if _told:
        _end(signum)
    _told.append(signum)
    raise Stopped(signum)


def _end(signum: int) -> NoReturn:
    """End the process in a line. Files are whole at any moment, and other processes end with this one."""
    if not _lines:
        os.write(2, b"rlkd: interrupted\n")
    os._exit(128 + signum)


def _end_if_stopped(unraisable: Any) -> None:
    """End the process if a signal has met code whose errors Python ignores; otherwise say so, as Python does."""
    if isinstance(unraisable.exc_value, Stopped):
        _end(unraisable.exc_value.signum)
    sys.__unraisablehook__(unraisable)
