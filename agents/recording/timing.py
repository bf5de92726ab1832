"""How long each part of a run takes; every second is counted once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper


class PartTimer:
    """Counts wall-clock seconds by part; while a part runs inside another, the outer clock stands still.

    For one of several runs that are made together it counts an equal share, ``1 / runs`` of every second.
    """

    def __init__(self, runs: int = 1) -> None:
        self._runs = runs
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside the ``with`` block as this part's."""
        self._switch()
        self._parts.append(name)
        try:
            yield
        finally:
            self._switch()
            self._parts.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._parts:
            self.seconds[self._parts[-1]] += (now - self._since) / self._runs
        self._since = now


class TimedVectorEnv(VectorWrapper):
    """Counts the time of a vector environment's steps as the part ``environment``."""

    def __init__(self, env: VectorEnv[Any, Any, np.ndarray], timer: PartTimer) -> None:
        super().__init__(env)
        self._timer = timer

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment."""
        with self._timer.part("environment"):
            return self.env.step(actions)
