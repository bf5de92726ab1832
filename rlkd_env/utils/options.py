"""Options as frozen dataclasses that check themselves, nested in groups and known by one flat name each."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.registry import import_by_path

OptionValue = int | float | bool | str
"""Value of a part's own argument, such as those of ``--method-options``."""

RENAMED_OPTIONS = {
    "sequence_phases": "curriculum_phases",
    "sequence_first_share": "curriculum_first_share",
    "bandit": "discount",
}
"""Former names of options, which files, folders and callers may still use, and their names today."""
LATER_OPTIONS: dict[str, Any] = {
    "annotations": [],
    "around_level": "free",
    "auto_augment": "none",
    "auxiliary_weight": 0.0,
    "class_balanced": False,
    "clip_grad_norm": None,
    "dot_delta": 0.075,
    "cutmix_alpha": 0.0,
    "ema_decay": None,
    "label_smoothing": 0.0,
    "learning_rate_warmup": 0,
    "mixup_alpha": 0.0,
    "model_options": {},
    "normalization": ["auto"],
    "patience": None,
    "randaugment_magnitude": 9,
    "random_erase": 0.0,
    "teacher_normalization": ["auto"],
    "teacher_weights": "mean",
}
"""Options that came after results had been published, with the value of what was done before."""
FORMER_OPTIONS = {"compile": False}
"""Options that are gone, which files and folders may still hold with the value of what is done today."""
FORMER_DEFAULTS = {"probe_size": 512}
"""What options that are None today were by default when results had been published, which did the same."""
RENAMED_VALUES: dict[tuple[str, str | bool], Any] = {
    ("executor", "sequence"): "serial",
    ("run_mode", "sequence"): "serial",
    ("discount", True): 0.0,
    ("discount", False): 0.99,
}
"""Former values of options, likewise."""


@dataclass(frozen=True)
class Bounds:
    """What a number must be beside finite; written as ``Annotated[int, Bounds(at_least=1)]``."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        short = {Bounds(): "be finite", Bounds(at_least=0): "not be negative", Bounds(above=0): "be positive"}
        if self in short:
            return short[self]
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        told = " and ".join(f"{name} {bound:g}" for name, bound in named.items() if bound is not None)
        return f"be {told} {self.unit}".rstrip()

    def hold(self, value: float) -> bool:
        """Return whether a number is finite and lies within the bounds."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True)
class NameOf:
    """What a text is: the name of a part. In its place the part itself may be given, which is read as its name.

    The registry, written as ``package.module:NAME``, is imported only if a part is given.
    """

    registry: str

    def read(self, part: Any) -> str | None:
        """Return the name of a part, or a path as text; a name and None as they are."""
        if part is None or isinstance(part, str):
            return part
        if isinstance(part, Path):
            return str(part)
        name: str = import_by_path(self.registry, "registry").name_of(part)
        return name


@dataclass(frozen=True)
class TemperatureText:
    """What a number or text is: a temperature."""


MOST_PROCESSES = 1024
"""Beyond this many processes, or threads of one, a number is a slip."""
Threads = Annotated[int, Bounds(at_least=1, at_most=MOST_PROCESSES)]
Finite = Annotated[float, Bounds()]
Seed = Annotated[int, Bounds(at_least=0)]
"""What NumPy and stable-baselines3 take as a seed."""
Count = Annotated[int, Bounds(at_least=1)]
NonNegativeInt = Annotated[int, Bounds(at_least=0)]
Positive = Annotated[float, Bounds(above=0)]
NonNegative = Annotated[float, Bounds(at_least=0)]
Share = Annotated[float, Bounds(above=0, at_most=1)]
UnitInterval = Annotated[float, Bounds(at_least=0, at_most=1)]
LARGEST = 2**32 - 1
"""The largest whole number that an option may be, which is also the largest seed that NumPy takes."""
TemperatureOption = Annotated[float | str, TemperatureText()]
"""A temperature, or with the suffix s a multiple of the teacher's mean logit standard deviation."""

Self = TypeVar("Self", bound="Options")


class Options:
    """Base of the frozen dataclasses whose fields are options or groups of options.

    Where one is made its values are brought to the types of their fields, and checked: numbers are finite and within
    their :class:`Bounds`, choices are known. No two options of a class and its groups have the same name, so that they
    can be read from, and written as, one flat mapping.
    """

    def __post_init__(self) -> None:
        for name, hint in hints_of(type(self)).items():
            if isinstance(getattr(self, name), Options):
                continue
            value = read_value(name, getattr(self, name), hint)
            if isinstance(value, str) and (not value.strip() or "\0" in value):
                raise UsageError(f"{name.replace('_', ' ')} must be text, not {value!r}")
            object.__setattr__(self, name, value)

    @classmethod
    def from_keywords(cls: type[Self], keywords: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Build from options by their flat names; the others keep their defaults."""
        return cls().replaced({**(keywords or {}), **more})

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the flat names of all options."""
        names: list[str] = []
        for name, hint in hints_of(cls).items():
            names += hint.option_names() if isinstance(hint, type) and issubclass(hint, Options) else [name]
        return names

    def as_keywords(self) -> dict[str, Any]:
        """Return all options by their flat names."""
        told: dict[str, Any] = {}
        for name in hints_of(type(self)):
            value = getattr(self, name)
            told |= value.as_keywords() if isinstance(value, Options) else {name: value}
        return told

    def replaced(self: Self, keywords: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Return the same options with other values for some of them, by their flat names."""
        changes, valid = renamed({**(keywords or {}), **more}), self.option_names()
        for name in changes:
            if name not in valid:
                raise unknown_name("option", name, valid)
        own: dict[str, Any] = {}
        for name in hints_of(type(self)):
            value = getattr(self, name)
            if isinstance(value, Options):
                inner = {option: changes[option] for option in value.option_names() if option in changes}
                own |= {name: value.replaced(inner)} if inner else {}
            elif name in changes:
                own[name] = changes[name]
        return dataclasses.replace(self, **own)  # type: ignore[type-var]


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under the names and with the values that they have today."""
    kept = {
        name: value for name, value in options.items() if name not in FORMER_OPTIONS or value != FORMER_OPTIONS[name]
    }
    current = {RENAMED_OPTIONS.get(name, name): value for name, value in kept.items()}
    return {
        name: RENAMED_VALUES.get((name, value), value) if isinstance(value, str | bool) else value
        for name, value in current.items()
    }


def read_value(name: str, value: Any, hint: Any) -> Any:
    """Bring a value to a type, as the command line would read its text."""
    origin, arguments, words = get_origin(hint), get_args(hint), name.replace("_", " ")
    if origin is Annotated:
        for note in arguments[1:]:
            if isinstance(note, NameOf):
                value = note.read(value)
        read = read_value(name, value, arguments[0])
        for bounds in arguments[1:]:
            if isinstance(bounds, Bounds) and not bounds.hold(read):
                raise UsageError(f"{words} must {bounds}, not {read}")
            if isinstance(bounds, TemperatureText):
                split_temperature(read)
        return read
    if origin in (Union, types.UnionType):
        return _read_union(name, value, arguments)
    if origin is Literal:
        if value not in arguments:
            raise unknown_name(words, value, arguments)
        return value
    if origin is tuple:
        return _read_tuple(name, value, arguments)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{words} must be pairs of a name and a value, not {value!r}")
        return {str(key): _read_argument(f"{name} {key}", item, arguments[1]) for key, item in value.items()}
    return _read_scalar(words, value, hint)


_known_hints: dict[type, dict[str, Any]] = {}


def hints_of(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass' fields by name, with their notes such as :class:`Bounds`."""
    if kind not in _known_hints:
        hints = get_type_hints(kind, include_extras=True)
        _known_hints[kind] = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return _known_hints[kind]


def _read_union(name: str, value: Any, members: tuple[Any, ...]) -> Any:
    if type(None) in members:
        if value is None or value == "None":
            return None
        members = tuple(member for member in members if member is not type(None))
    if len(members) == 1:
        return read_value(name, value, members[0])
    for member in members:
        with suppress(UsageError):
            return read_value(name, value, member)
    kinds = " or ".join(_KINDS[member] for member in members if member in _KINDS)
    raise UsageError(f"{name.replace('_', ' ')} must be {kinds}, not {value!r}")


def _read_tuple(name: str, value: Any, members: tuple[Any, ...]) -> tuple[Any, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    if members[-1] is Ellipsis:
        members = (members[0],) * len(items)
    if len(items) != len(members):
        raise UsageError(f"{name.replace('_', ' ')} must be {len(members)} values, not {len(items)}")
    return tuple(read_value(name, item, member) for item, member in zip(items, members, strict=True))


def _read_argument(name: str, value: Any, hint: Any) -> Any:
    """Read a part's own argument: scalars as on the command line, options inside of options as JSON."""
    if hint is str and isinstance(value, Mapping):
        return json.dumps(value)
    if hint is str or isinstance(value, str):
        value = read_value(name, value, hint)
    _check_plain(name.replace("_", " "), value)
    return value


def _check_plain(words: str, value: Any) -> None:
    """Check that a value, with all that it holds, can be written to a file, and that its numbers are finite."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_plain(f"{words} {key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(words, inner)
    elif value is None or isinstance(value, int | float | str):
        _check_number(words, value)
    else:
        raise UsageError(f"{words} must be a number, True or False, or text, not {value!r}")


def split_temperature(bound: str | float) -> tuple[float, bool]:
    """Read a temperature (``4``), or with suffix ``s`` a multiple of the teacher's logit deviation (``0.125s``).

    Return the number, and whether it is a multiple.

    Raises:
        UsageError: if the text is not of that form, or the number is not positive and finite.
    """
    text = str(bound).strip().lower()
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        raise UsageError(
            f"{bound!r} is no temperature: give a number such as 4, or 0.125s in units of the teacher's logit deviation"
        ) from None
    if not 0 < value < math.inf:
        raise UsageError(f"a temperature must be positive and finite, not {bound}")
    return value, text.endswith("s")


def read_arguments(part: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the arguments of a class or function to the types of its parameters, where these are plain ones.

    Raises:
        UsageError: if one is of another type or out of the bounds that its type names.
    """
    parameters, read = inspect.signature(part).parameters, dict(options)
    for name in read.keys() & parameters.keys():
        hint = _resolved(parameters[name].annotation, part)
        if get_origin(hint) is Annotated or hint in _KINDS:
            read[name] = read_value(name, read[name], hint)
    return read


def _resolved(annotation: Any, part: Callable[..., Any]) -> Any:
    """Return a type that may be given as text, as modules with postponed annotations do; None if it is not known."""
    if not isinstance(annotation, str):
        return annotation
    function = part.__init__ if isinstance(part, type) else inspect.unwrap(part)  # type: ignore[misc]
    try:
        return eval(annotation, getattr(function, "__globals__", {}))  # the code of a part that is imported
    except (NameError, AttributeError, SyntaxError, TypeError):
        return None


_KINDS: dict[Any, str] = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _read_scalar(words: str, value: Any, kind: Any) -> Any:
    read = _as_kind(words, value, kind)
    _check_number(words, read)
    return read


def _check_number(words: str, value: Any) -> None:
    """Check that a number is finite and, if it is a whole one, not absurdly large; anything else passes."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{words} must {Bounds()}, not {value}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{words} must be at most {LARGEST}, not {value:.3e}")


def _as_kind(words: str, value: Any, kind: Any) -> Any:
    text = value if isinstance(value, str) else None
    try:
        if kind is bool and (isinstance(value, bool) or text in ("True", "False")):
            return text == "True" if text else value
        if kind is int and (text or isinstance(value, Integral)) and not isinstance(value, bool):
            return int(value)
        if kind is float and (text or isinstance(value, Real)) and not isinstance(value, bool):
            return float(value)
        if kind is str and not isinstance(value, bool) and isinstance(value, str | Real):
            return os.path.expanduser(text) if text and text.startswith("~/") else str(value)  # no name begins so
    except ValueError:
        pass
    raise UsageError(f"{words} must be {_KINDS[kind]}, not {value!r}")
