"""Arguments to options by tyro, and why it refuses an argument, as one sentence.

tyro offers no public way to learn why it refuses an argument: it prints a box and leaves. Its hook for parse errors is
used instead, which is private and may change, and so in this file alone. Where it is missing, tyro's box is shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeVar, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from rlkd_env.errors import UsageError
from rlkd_env.utils.options import RENAMED_OPTIONS, RENAMED_VALUES, Options

try:
    from tyro import _errors as tyro_errors
except ImportError:  # pragma: no cover (another version of tyro)
    tyro_errors = None  # type: ignore[assignment]

Config = TypeVar("Config", bound=Options)
REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _pairs(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, str]] | None:
    """Read options inside of options as ``NAME VALUE ...``; the options themselves read the values."""
    if get_origin(info.type) is not dict:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME VALUE ...",
        instance_from_str=_read_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [str(part) for pair in value.items() for part in pair],
    )


def _read_pairs(parts: list[str]) -> dict[str, str]:
    if len(parts) % 2:
        raise ValueError(f"every name needs a value: {parts[-1]!r} has none")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def parse_options(kind: type[Config], arguments: Sequence[str], prog: str, default: Config | None = None) -> Config:
    """Read a command's arguments."""
    refusing = nullcontext() if tyro_errors is None else tyro_errors.on_parse_error(lambda event: _refuse(event, kind))
    more: dict[str, Any] = {} if default is None else {"default": default}
    with refusing:
        return tyro.cli(kind, args=arguments, prog=prog, config=(tyro.conf.OmitArgPrefixes,), registry=REGISTRY, **more)


def named_options(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return the options that are named among arguments, each with the argument that follows it or None."""
    found: dict[str, str | None] = {}
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            name = flag[2:].removeprefix("no-").replace("-", "_")
            found[name] = value if equals else following
    return found


def renamed_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments with options and values under the names that they have today."""
    current: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            name = flag[2:].replace("-", "_")
            flag = f"--{RENAMED_OPTIONS[name].replace('_', '-')}" if name in RENAMED_OPTIONS else flag
            current.append(f"{flag}{equals}{RENAMED_VALUES.get((name, value), value)}")
        else:
            before = current[-1][2:].replace("-", "_") if current else ""
            current.append(RENAMED_VALUES.get((before, argument), argument))
    return current


def _refuse(event: Any, kind: type[Options]) -> None:
    """Raise what tyro is about to print as a UsageError; what is not known here is left to tyro's box."""
    if isinstance(event, tyro_errors.UnrecognizedArgs):
        raise _unrecognized(event.tokens, kind)
    if isinstance(event, tyro_errors.InstantiationFailure):
        raise UsageError(event.message if event.argument is None else f"{_flag(event.argument)}: {event.message}")
    if isinstance(event, tyro_errors.InvalidChoice):
        valid = ", ".join(event.choices)
        raise UsageError(f"{_flag(event.argument)} cannot be {event.value!r}. Valid: {valid}")
    if isinstance(event, tyro_errors.MutexConflict):
        raise UsageError(f"{event.first_token} and {event.second_token} exclude each other")
    if isinstance(event, tyro_errors.BadValue):
        count = event.argument.lowered.nargs
        raise UsageError(f"{_flag(event.argument)} needs {'a value' if count == 1 else f'{count} values'}")
    if isinstance(event, tyro_errors.MissingArgs):
        raise UsageError(f"{', '.join(_flag(missing.arg) for missing in event.missing_arguments)} is missing")


def _flag(argument: Any) -> str:
    """Return an argument's name as it is written on the command line."""
    if argument.is_positional():
        return str(argument.lowered.metavar)
    return str(argument.lowered.name_or_flags[-1])


def _unrecognized(tokens: list[str], kind: type[Options]) -> UsageError:
    unknown = [token for token in tokens if token.startswith("-")] or tokens
    valid = [f"--{name.replace('_', '-')}" for name in kind.option_names()]
    close = difflib.get_close_matches(unknown[0].partition("=")[0].replace("_", "-"), valid, n=1)
    hint = f". Did you mean {close[0]}?" if close else ""
    return UsageError(f"Unrecognized options: {' '.join(unknown)}{hint}")
