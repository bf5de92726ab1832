"""What is costly to make, kept for the next runs of a process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Memo:
    """Keeps values by their keys; the least recently used one goes first where there are more than ``size``.

    >>> memo = Memo(size=2)
    >>> memo.keep("data", lambda: [1, 2, 3])
    [1, 2, 3]
    >>> memo.keep("data", lambda: [])
    [1, 2, 3]
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value that is kept for a key, or make it; who gets it must not change it."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        value = cast("T", self._kept[key])
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return value


class NoMemo(Memo):
    """Keeps nothing: every value is made anew."""

    def __init__(self) -> None:
        super().__init__(size=0)
