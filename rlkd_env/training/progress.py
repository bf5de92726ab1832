"""A progress bar for teachers that are trained on the way."""

from __future__ import annotations

from tqdm.auto import tqdm


class TeacherBar:
    """Follows the training of a teacher by epoch, from 1, and mean loss; the bar appears with the first epoch.

    Args:
        is_shown: Whether there is a bar at all.
    """

    def __init__(self, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar: tqdm | None = None

    def __call__(self, epoch: int, loss: float) -> None:
        """Show that an epoch is over."""
        if self._bar is None:
            self._bar = tqdm(desc="teacher", unit="epoch", disable=not self._is_shown)
        self._bar.update(epoch - self._bar.n)
        self._bar.set_postfix(loss=f"{loss:.4f}")

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
