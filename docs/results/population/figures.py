"""The figures of the tables on populations, from ``members.csv`` and ``kept.csv``.

Accuracies are those of the students of the last epoch, which are kept, on the test images.

A population's choice, made by the validation images, is compared with the member that has the best mean over the seeds
on the test images, as fixed temperatures are everywhere in the results.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from statistics import fmean

from experiments.compare.statistics import estimate_mean

FOLDER = Path(__file__).parent
LAST = "last_test_accuracy"
Figure = dict[str, object]
BySeed = dict[str, float]


@cache
def _read(file: str, name: str) -> dict[tuple[str, str, str], dict[str, dict[str, str]]]:
    """Return the lines of a file by task, population and what ``name`` names, seed by seed."""
    found: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
    with (FOLDER / file).open() as lines:
        for line in csv.DictReader(lines):
            found.setdefault((line["task"], line["population"], line[name]), {})[line["seed"]] = line
    return found


def kept(task: str, population: str, what: str = "best") -> BySeed:
    """Return the accuracies, as shares, of what may be kept."""
    return _shares(_read("kept.csv", "kept")[task, population, what], "test_accuracy")


def members(task: str, population: str) -> list[BySeed]:
    """Return the accuracies, as shares, of all members."""
    rows = _read("members.csv", "member")
    return [_shares(lines, LAST) for (of, name, _), lines in rows.items() if (of, name) == (task, population)]


def best_member(task: str, population: str) -> BySeed:
    """Return those of the member with the highest mean over the seeds."""
    return max(members(task, population), key=lambda member: fmean(member.values()))


def annealing(task: str) -> BySeed:
    """Return those of the default schedule, which is a member of the population of schedules."""
    return _shares(_read("members.csv", "member")[task, "anneal", "3s-to-0.35s"], LAST)


def mean_member(task: str, population: str) -> BySeed:
    """Return the means over all members."""
    everyone = members(task, population)
    return {seed: fmean(member[seed] for member in everyone) for seed in everyone[0]}


def difference(one: BySeed, other: BySeed) -> Figure:
    """Return mean and 95 % interval of a difference, paired by seeds."""
    found = estimate_mean([one[seed] - other[seed] for seed in other])
    return {"mean": found.mean, "interval": found.interval}


def _shares(lines: dict[str, dict[str, str]], figure: str) -> BySeed:
    return {seed: float(line[figure]) / 100.0 for seed, line in lines.items()}
