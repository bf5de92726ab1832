"""Options that check themselves, and their flat names."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import Bounds, Count, Options, OptionValue, Positive, renamed


@dataclass(frozen=True)
class Inner(Options):
    width: Count = 3
    rate: Positive = 0.5
    share: Annotated[float, Bounds(above=0, at_most=1)] | None = None
    pairs: dict[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer(Options):
    inner: Inner = field(default_factory=Inner)
    colour: Literal["red", "green"] = "red"
    bound: float | str = "2s"
    names: tuple[str, ...] = ("a",)
    is_on: bool = False


def test_options_are_read_and_told_by_flat_names() -> None:
    options = Outer.from_keywords({"width": 7, "colour": "green"}, is_on=True)
    assert (options.inner.width, options.colour, options.is_on) == (7, "green", True)
    told = options.as_keywords()
    assert list(told) == Outer.option_names()
    assert Outer.from_keywords(told) == options
    assert options.replaced(width=8).inner.width == 8
    assert options.inner.width == 7
    with pytest.raises(FrozenInstanceError):
        options.inner.width = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"width": "7"}, 7),
        ({"width": np.int64(7)}, 7),
        ({"rate": 1}, 1.0),
        ({"rate": "1e-3"}, 1e-3),
        ({"rate": np.float32(0.5)}, 0.5),
        ({"share": None}, None),
        ({"share": "None"}, None),
        ({"share": "0.5"}, 0.5),
        ({"bound": 4}, 4.0),
        ({"bound": "4"}, 4.0),
        ({"bound": "0.5s"}, "0.5s"),
        ({"names": ["x", "y"]}, ("x", "y")),
        ({"names": "x"}, ("x",)),
        ({"is_on": "True"}, True),
        ({"pairs": {"a": "1", "b": "1e-3", "c": "False", "d": "x"}}, {"a": 1, "b": 1e-3, "c": False, "d": "x"}),
        ({"pairs": {"a": 1.0, "b": True, "c": [1, 2]}}, {"a": 1.0, "b": True, "c": [1, 2]}),
    ],
)
def test_values_are_brought_to_their_types(given: dict[str, Any], expected: Any) -> None:
    (name,) = given
    found = Outer.from_keywords(given).as_keywords()[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"width": 1.0}, "width must be a whole number, not 1.0"),
        ({"width": True}, "width must be a whole number, not True"),
        ({"width": None}, "width must be a whole number, not None"),
        ({"rate": 0}, "rate must be positive, not 0.0"),
        ({"rate": "fast"}, "rate must be a number, not 'fast'"),
        ({"rate": float("inf")}, "rate must be finite, not inf"),
        ({"rate": float("nan")}, "rate must be finite, not nan"),
        ({"share": 1.5}, "share must be above 0 and at most 1, not 1.5"),
        ({"bound": [1]}, r"bound must be a number or text, not \[1\]"),
        ({"is_on": 1}, "is on must be True or False, not 1"),
        ({"names": [True]}, "names must be text, not True"),
        ({"pairs": 3}, "pairs must be pairs of a name and a value, not 3"),
        ({"colour": "gren"}, "unknown colour 'gren'. Did you mean 'green'"),
        ({"widht": 3}, "unknown option 'widht'. Did you mean 'width'"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Outer.from_keywords(given)


def test_the_home_folder_is_found_in_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell expands it for the words of a command line alone, and not after an equals sign."""
    monkeypatch.setenv("HOME", "/home/somebody")
    config = RunConfig.from_keywords(data_path="~/data", teacher=["~/one", "two~/x"], student="~")
    assert config.data.data_path == "/home/somebody/data"
    assert config.networks.teacher == ("/home/somebody/one", "two~/x")
    assert config.networks.student == "~"


def test_what_is_gone_is_read_with_the_value_of_what_is_done_today_alone() -> None:
    assert renamed({"compile": False, "epochs": 3}) == {"epochs": 3}
    assert RunConfig.from_keywords(renamed({"compile": False})) == RunConfig.from_keywords()
    with pytest.raises(UsageError, match="unknown option 'compile'"):
        RunConfig.from_keywords(compile=True)


def test_former_names_and_values_are_understood() -> None:
    former = {"sequence_phases": 4, "run_mode": "sequence", "executor": "sequence", "other": "sequence"}
    expected = {"curriculum_phases": 4, "run_mode": "serial", "executor": "serial", "other": "sequence"}
    assert renamed(former) == expected
    assert RunConfig.from_keywords(sequence_phases=4).curriculum.curriculum_phases == 4


def test_every_option_of_a_run_has_one_name_and_every_number_a_check() -> None:
    names = RunConfig.option_names()
    assert len(set(names)) == len(names)
    defaults = RunConfig().as_keywords()
    for name, value in defaults.items():
        if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
            with pytest.raises(UsageError):
                RunConfig.from_keywords({name: float("nan")})
