"""Files that are made once and kept for all runs of a user: teachers of data sets, and features of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from rlkd_env.errors import UsageError
from rlkd_env.utils.notices import tell

Made = TypeVar("Made")


def cache_folder() -> Path:
    """Return, and make, the folder that the environment variable ``RLKD_CACHE`` names, else ``~/.cache/rlkd``."""
    folder = Path(os.environ.get("RLKD_CACHE") or Path.home() / ".cache" / "rlkd")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(path: Path, what: str, read: Callable[[Path], Made], make: Callable[[Path], Made]) -> Made:
    """Return what a file of the cache holds, or make it and the file; ``what`` names it for messages.

    Processes that ask at the same time wait for the one that makes it, and say so. A damaged file is made anew, with a
    line. In a cache that cannot be written to a file is read as it is.
    """
    if path.is_file() and not os.access(path.parent, os.W_OK):
        return read(path)
    with locked(path, what):
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink()
        if path.is_file():
            try:
                return read(path)
            except UsageError as error:
                tell(f"the cached {what} is made anew: {error}")
                path.unlink()
        return make(path)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file in the cache; say so if another process has it."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"another process makes the {what} {path}, or reads it: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
