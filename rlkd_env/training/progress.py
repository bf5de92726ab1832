"""Progress: a bar in a terminal or a notebook, and a line every few seconds in a log file."""

from __future__ import annotations

import sys
from typing import IO, Any

from tqdm.auto import tqdm

_LINE_SECONDS = 5.0
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {percentage:.0f} %, {elapsed} so far, {remaining} left{postfix}"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}s, {elapsed} so far{postfix}"


class _Lines:
    """A stream in which what is written over a line becomes a line of its own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what a bar shows as a line."""
        if told := text.strip():
            self._stream.write(f"{told}\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


class _LineBar(tqdm):
    """A bar in a log file, where what it is told beside the count waits for the next line."""

    def set_postfix(self, *args: Any, refresh: bool = False, **told: Any) -> None:  # noqa: ARG002
        """Set what is told beside the count."""
        super().set_postfix(*args, refresh=False, **told)


def progress_bar(desc: str, unit: str, total: int | None = None, is_shown: bool = True, **options: Any) -> tqdm[Any]:
    """Return a tqdm bar on standard error: drawn in place in a terminal or notebook, elsewhere a line now and then.

    A bar that is over within a few seconds leaves no line in a log.
    """
    if not is_shown or sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(desc=desc, unit=unit, total=total, disable=not is_shown, **{"mininterval": 0.5, **options})
    seconds = max(_LINE_SECONDS, options.pop("mininterval", 0.0))
    return _LineBar(
        desc=desc,
        unit=unit,
        total=total,
        file=_Lines(sys.stderr),
        mininterval=seconds,
        maxinterval=seconds,
        delay=seconds,
        bar_format=_LINE if total else _LINE_WITHOUT_TOTAL,
        **options,
    )


class TeacherBar:
    """Follows the training of a teacher by epoch, from 1, all epochs and mean loss; it appears with the first epoch.

    Args:
        is_shown: Whether there is a bar at all.
    """

    def __init__(self, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar: tqdm[Any] | None = None

    def __call__(self, epoch: int, epochs: int, loss: float) -> None:
        """Show that an epoch is over."""
        if self._bar is None:
            self._bar = progress_bar("teacher", "epoch", epochs, self._is_shown)
        self._bar.update(epoch - self._bar.n)
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
