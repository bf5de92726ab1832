"""What clients may ask of an environment: keywords, seeds and options, read and checked."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any, SupportsIndex, get_args

import numpy as np
from gymnasium.vector import AutoresetMode

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.choices import ObservationKind

MAX_SEED = 2**31 - 1

Seed = SupportsIndex | None
"""A whole number of Python or NumPy, or None for one that the environment draws."""


class UnknownKeywordError(UsageError, TypeError):
    """A keyword that no setting has: told as our own error, and as Python tells it of any function."""


def check_keywords(environment: type, keywords: Iterable[str], settings: Collection[str]) -> None:
    """Refuse the first keyword of an environment that no setting has, in Python's words.

    Raises:
        UnknownKeywordError: if there is one; it names the closest match and every valid name.
    """
    for keyword in keywords:
        if keyword not in settings:
            parameters = inspect.signature(environment).parameters.values()
            own = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
            told = unknown_name("keyword", keyword, (*own, *settings))
            raise UnknownKeywordError(
                f"{environment.__name__}() got an unexpected keyword argument {keyword!r}: {told}"
            )


def check_observation(kind: str) -> None:
    """Refuse a kind of observation that there is not.

    Raises:
        UsageError: if there is none of this name.
    """
    if kind not in get_args(ObservationKind):
        raise unknown_name("observation", kind, get_args(ObservationKind))


def whole_seed(seed: Seed) -> int | None:
    """Return a seed as Python's int, as Gymnasium wants it.

    Raises:
        TypeError: if it is neither a whole number nor None.
    """
    return None if seed is None else operator.index(seed)


def run_seeds(seed: Seed | Sequence[Seed], num_envs: int, num_runs: int) -> list[int | None]:
    """Return the seeds of K runs, None where the environment draws one, from what a client asks for N slots.

    One seed is the first run's, and the following runs have the following ones. A sequence has a seed for every run,
    or one for every slot, as Gymnasium has it; then a run has that of its first slot.

    Raises:
        UsageError: if a sequence has neither N nor K seeds.
    """
    if isinstance(seed, Sequence | np.ndarray):
        if len(seed) not in (num_envs, num_runs):
            raise UsageError(f"expected a seed for each of {num_envs} slots or {num_runs} runs, got {len(seed)} seeds")
        return [whole_seed(one) for one in seed[:: len(seed) // num_runs]]
    first = whole_seed(seed)
    return [None if first is None else first + run for run in range(num_runs)]


def check_options(options: dict[str, Any] | None, valid: Collection[str] = ()) -> None:
    """Refuse options of ``reset`` that nobody would follow, a mask of some of the slots among them.

    Raises:
        UsageError: if there are any.
    """
    for name, value in (options or {}).items():
        if name == "reset_mask":
            if not np.all(value):
                raise UsageError(
                    "all slots are of the same runs and start together: a reset_mask must name all of them"
                )
        elif name not in valid:
            raise unknown_name("option of reset", name, (*valid, "reset_mask"))


def autoreset_mode(name: str | AutoresetMode) -> AutoresetMode:
    """Return the mode that is called ``"next_step"`` or ``"same_step"``.

    Raises:
        UsageError: if it is another one.
    """
    modes = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}
    mode = modes.get(name, name) if isinstance(name, str) else name
    if mode not in modes.values():
        raise unknown_name("autoreset_mode", name, modes)
    return AutoresetMode(mode)
