"""Names for the interchangeable parts: methods, features, rewards, networks, data sets, agents."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from rlkd_env.errors import UsageError, unknown_name

T = TypeVar("T")


def import_by_path(path: str, kind: str) -> Callable[..., Any]:
    """Return what a user's ``package.module:name`` names.

    Args:
        path: found as Python finds modules, the working folder included.
        kind: what it stands for, for the error message.

    Raises:
        UsageError: if the module cannot be imported, or has no such function or class.
    """
    module_name, _, attribute = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # which Python does by itself for scripts, but not for an installed command
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{kind} {path!r}: the module {module_name!r} cannot be imported ({reason}); "
            "is it installed, or its folder on PYTHONPATH?"
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(f"{kind} {path!r}: the module {module_name!r} has no {attribute!r}")
    found = getattr(module, attribute)
    if not callable(found):
        raise UsageError(f"{kind} {path!r}: {attribute!r} is no function or class")
    return cast(Callable[..., Any], found)


class Registry(Mapping[str, T]):
    """A read-only mapping from names to parts that answers an unknown name with the valid ones.

    Args:
        kind: what the parts are, for the error message, such as ``"reward"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its function or class under ``name``.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._parts:
            raise ValueError(f"{self.kind} {name!r} is registered already")

        def add(part: T) -> T:
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._parts[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._parts) from None

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
