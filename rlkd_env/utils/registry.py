"""Names for the interchangeable parts: methods, features, rewards, calibrators, rules, agents, networks, data sets."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

from rlkd_env.errors import UsageError, missing_package, unknown_name
from rlkd_env.utils.trust import MODULE_PATH, check_believed

T = TypeVar("T")


def import_by_path(path: str, kind: str, extra: str | None = None) -> Any:
    """Import what ``package.module:name`` names in this package or one that it needs; it runs the module's code.

    Raises:
        UsageError: if the module cannot be imported or does not define the name.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        if extra is not None and isinstance(error, ModuleNotFoundError):
            package = module_name.partition(".")[0].replace("_", "-")
            raise missing_package(f"the {kind} {path.partition(':')[2]}", package) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{kind} {path!r}: the module {module_name!r} cannot be imported ({reason}); "
            "is it installed, or its folder on PYTHONPATH?"
        ) from error
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        raise UsageError(f"{kind} {path!r}: the module {module_name!r} has no {name!r}") from None


def import_outside(path: str, kind: str) -> Any:
    """Import somebody's own part or factory by its module path; it runs the module's code.

    Raises:
        UsageError: if a file alone names it, if it is of Python's standard library, whose functions start programs and
            write files, or if it cannot be imported.
    """
    if not MODULE_PATH.fullmatch(path):
        raise UsageError(f"{kind} {path!r}: somebody's own code is named as package.module:name")
    check_believed(path, kind)
    _refuse_standard_library(path.partition(":")[0], path, kind)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # Python does so for scripts, but not for an installed command
    part = import_by_path(path, kind)
    if callable(part):
        _refuse_standard_library(path_of(part).partition(":")[0], path, kind)
    return part


def is_factory(part: Any) -> bool:
    """Return whether something is a function or class, perhaps with some of its arguments given, that makes others."""
    return inspect.isclass(part) or inspect.isroutine(part) or isinstance(part, partial)


def _refuse_standard_library(module: str, path: str, kind: str) -> None:
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UsageError(f"{kind} {path!r}: code of Python's standard library is no {kind}")


def subclass_of(*bases: str) -> Callable[[Any], Any]:
    """Return a check that a part is a class derived from one of ``bases``, each given as ``package.module:name``."""

    def check(part: Any) -> Any:
        if not isinstance(part, type) or not issubclass(part, tuple(import_by_path(base, "class") for base in bases)):
            raise UsageError(f"not a subclass of {' or '.join(base.replace(':', '.') for base in bases)}")
        return part

    return check


def instance_of(kind: type[T], how: str) -> Callable[[Any], T]:
    """Return a check that a part is an instance of a class; ``how`` says what makes one, for the error message."""

    def check(part: Any) -> T:
        if not isinstance(part, kind):
            raise UsageError(f"not a {kind.__name__}, which is {how}")
        return part

    return check


class Registry(Mapping[str, T]):
    """A read-only mapping from names to parts of one kind.

    A name of the form ``package.module:name`` that is not registered is imported, so parts can come from outside the
    package. Any other unknown name is answered with the closest match and all valid names.

    Args:
        kind: what the parts are, for error messages, such as ``"reward"``.
        parts: the parts by name; one given as ``"package.module:name"`` is imported on first use.
        adopt: turns an object from outside into a part, or raises a UsageError that says why not; None accepts none.
    """

    def __init__(
        self, kind: str, parts: Mapping[str, T | str] | None = None, adopt: Callable[[Any], T] | None = None
    ) -> None:
        self.kind = kind
        self._parts: dict[str, T | str] = dict(parts or {})
        self._adopt = adopt
        self._adopted: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its function or class under ``name``, which no other part may have.

        Defining the same part again, as a notebook's cell does that is run twice, replaces it.

        Raises:
            ValueError: if the name is taken by another part. Defining the same part again, as a notebook's cell does
                that is run twice, replaces it.
        """

        def add(part: T) -> T:
            if name in self._parts and path_of(self._parts[name]) != path_of(part):
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self._parts[name] = part
            return part

        return add

    def name_of(self, part: Any) -> str:
        """Return the name of a part, under which this registry finds it; a name is returned as it is.

        A part from outside is remembered as ``module:qualname``; another process finds it if it can import that.
        """
        if isinstance(part, str):
            return part
        for name, known in self._parts.items():
            if known is part or (isinstance(known, str) and known == path_of(part)):
                return name
        name = path_of(part)
        self._adopted[name] = self._from_outside(part, name)
        return name

    def __getitem__(self, name: str) -> T:
        if name in self._parts:
            part = self._parts[name]
            if isinstance(part, str):
                part = self._parts[name] = import_by_path(part, self.kind)
            return part
        if self._adopt is None or ":" not in str(name):
            raise unknown_name(self.kind, name, self._parts)
        if name not in self._adopted:
            self._adopted[name] = self._from_outside(import_outside(name, self.kind), name)
        return self._adopted[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def _from_outside(self, part: Any, name: str) -> T:
        if self._adopt is None:
            raise UsageError(f"{self.kind} {name!r} must be one of: {', '.join(sorted(self._parts))}")
        try:
            return self._adopt(part)
        except UsageError as error:
            raise UsageError(f"{self.kind} {name!r}: {error}") from None


def path_of(part: Any) -> str:
    """Return ``module:qualname`` of a class, a function, or an object that wraps a function in ``__wrapped__``.

    A string is returned as it is; a partial function is its function.
    """
    if isinstance(part, str):
        return part
    origin = inspect.unwrap(part)
    while isinstance(origin, partial):
        origin = inspect.unwrap(origin.func)
    if not hasattr(origin, "__qualname__"):
        origin = type(origin)
    return f"{origin.__module__}:{origin.__qualname__}"
