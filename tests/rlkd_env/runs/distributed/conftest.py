"""A group of a single process, for runs that several share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from one_process import Recording


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("WORLD_SIZE", 1), ("RANK", 0)):
        monkeypatch.setenv(name, str(value))
    joined = Recording.join("cpu")
    object.__setattr__(joined, "told", [])
    yield joined
    joined.leave()
    joined.leave()  # a second time does nothing
