"""Ctrl-C as a wish to stop where the state is consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupts:
    """Turns the first Ctrl-C into a wish; a second one ends at once.

    Attributes:
        stop_requested: whether the user asked to stop.
    """

    def __init__(self) -> None:
        self.stop_requested = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch interrupts within; outside of the main thread, which alone gets them, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(signum: int, frame: Any) -> None:  # noqa: ARG001
            self.stop_requested = True
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, request_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
