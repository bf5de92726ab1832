"""Whose code may run: a module path, ``package.module:name``, is not believed because a file names it.

A command believes what stands on its command line, and the files that it is told to trust. Python code, which imports
what it names, believes everything unless it says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import expanded, read_text

MODULE_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""The form of a module path; nothing else is imported from outside."""
_LARGEST_FILE = 2**24

_believed: ContextVar[frozenset[str] | None] = ContextVar("believed", default=None)


@contextmanager
def believing(paths: Iterable[str] | None) -> Iterator[None]:
    """Import, within the context, no code from outside but that at these module paths; None allows all."""
    token = _believed.set(None if paths is None else frozenset(paths))
    try:
        yield
    finally:
        _believed.reset(token)


def believed() -> frozenset[str] | None:
    """Return the module paths that are believed here, for another process; None means all."""
    return _believed.get()


def is_named(path: str) -> bool:
    """Return whether a module path is believed because the user has named it."""
    return path in (_believed.get() or ())


def check_believed(path: str, kind: str) -> None:
    """Check that somebody's own code may be imported.

    Raises:
        UsageError: if nothing but a file names it; the message says how to allow it.
    """
    if _believed.get() is not None and not is_named(path):
        raise UsageError(
            f"{kind} {path!r}: a file names this code, and a file alone never runs any: if you trust it, name it on "
            f"the command line too, by its option or as --trust {path}"
        )


def module_paths(value: Any) -> frozenset[str]:
    """Return all module paths in a text, or in the texts of nested lists and mappings."""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, str | Path):
        return frozenset(MODULE_PATH.findall(str(value)))
    if isinstance(value, list | tuple):
        return frozenset().union(*map(module_paths, value))
    return frozenset()


def trusted_paths(words: Iterable[str]) -> frozenset[str]:
    """Return the module paths that the option ``--trust`` names: each is one itself, or a text file that holds some.

    Raises:
        UsageError: if a word is neither, or the file cannot be read.
    """
    found: frozenset[str] = frozenset()
    for word in words:
        found |= {word} if MODULE_PATH.fullmatch(word) else module_paths(_read(expanded(word)))
    return found


def _read(file: Path) -> str:
    if not file.is_file():
        raise UsageError(f"--trust {file}: there is no such file, and it is no module path, package.module:name")
    try:
        return read_text(file, _LARGEST_FILE)
    except UsageError as error:
        raise UsageError(f"--trust: {error}") from None
