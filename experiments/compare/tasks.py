"""The tasks of a comparison: options of ``rlkd distill`` by name, and what a task changes in the comparison itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from experiments.compare.arms import Options, read_options
from experiments.config import CompareConfig
from rlkd_env.errors import UsageError, unknown_name

SEEDS, WITHOUT, ARMS = "seeds", "without", "arms"
"""What a task may say beside options of ``rlkd distill``."""


@dataclass(frozen=True)
class PlannedTask:
    """A task: options of ``rlkd distill``, the number of its seeds, and the options of its arms by their names."""

    options: Options
    seeds: int
    arms: dict[str, Options] = field(default_factory=dict)

    def fixed_arms(self) -> list[str]:
        """Return the arms that distil at a fixed temperature and differ in nothing else."""
        only = {"rule", "policy", "fixed_temperature"}
        return [name for name, options in self.arms.items() if options.get("rule") == "fixed" and set(options) <= only]


def create_tasks(config: CompareConfig, arms: Mapping[str, Options], baseline: str) -> dict[str, PlannedTask]:
    """Return the tasks that a comparison's options name, or one of the data set's name.

    A task may have another number of ``seeds``; ``arms`` of its own, which replace those of the same name; and be
    ``without`` some arms, whose names may hold wildcards.

    Raises:
        UsageError: if a task's own settings do not fit the comparison.
    """
    given = {name: read_options(f"task {name}", text) for name, text in config.comparison.tasks.items()}
    given = given or {config.run.data.dataset.rpartition(":")[2]: {}}
    return {name: _planned(name, options, config.comparison.seeds, arms, baseline) for name, options in given.items()}


def _planned(name: str, options: Options, seeds: int, arms: Mapping[str, Options], baseline: str) -> PlannedTask:
    own = _own_arms(name, options.pop(ARMS, {}))
    seeds = options.pop(SEEDS, seeds)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UsageError(f"task {name}: seeds must be at least 1 seed, not {seeds!r}")
    known = {**arms, **own}
    left_out = chosen(f"arm that task {name} is without:", options.pop(WITHOUT, []), {arm: [arm] for arm in known})
    if baseline in left_out:
        raise UsageError(f"task {name} cannot be without the baseline {baseline}")
    return PlannedTask(options, seeds, {arm: known[arm] for arm in known if arm not in left_out})


def _own_arms(task: str, given: Any) -> dict[str, Options]:
    if not isinstance(given, Mapping):
        raise UsageError(f"task {task}: arms must be options by the names of arms, not {given!r}")
    named = {str(arm): options for arm, options in given.items()}
    return {arm: read_options(f"task {task}, arm {arm}", str(options)) for arm, options in named.items()}


def chosen(what: str, patterns: Any, names: Mapping[str, list[str]]) -> list[str]:
    """Return the keys one of whose names matches one of the patterns; in these ``*`` and ``?`` are wildcards.

    Raises:
        UsageError: if a pattern matches nothing; it lists the first name of every key.
    """
    patterns = [str(pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)]
    matched = {pattern: [key for key in names if _is_one(names[key], pattern)] for pattern in patterns}
    for pattern, keys in matched.items():
        if not keys:
            raise unknown_name(what, pattern, {known[0] for known in names.values()})
    found = {key for keys in matched.values() for key in keys}
    return [key for key in names if key in found]


def _is_one(names: list[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)
