"""Comparison of a policy with the annealed schedule and fixed temperatures on runs of the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.rules import create_rule
from agents.rules.simple import FixedTemperature
from experiments.commands.train_agent.instances import Instance
from experiments.compare.statistics import paired_difference
from rlkd_env.data import ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy, parse_bound
from rlkd_env.runs.parallel import ParallelRuns, RunMode, create_parallel_runs

_RUNS_AT_ONCE = 128


class HeldOutRuns:
    """The runs of an instance, of all its seeds, that no policy is trained on."""

    def __init__(self, instance: Instance, device: str, run_mode: RunMode) -> None:
        self.instance = instance
        self.template = instance.build(probe_images=1, device=device, reward_interval=2**30, features=("progress",))
        self._mode = run_mode
        self._runs: dict[int, ParallelRuns] = {}

    def accuracies(self, policy: Policy, images: ImageSet, seeds: Sequence[int]) -> np.ndarray:
        """Return the accuracies ``(S,)`` of the last epoch's students, including those that diverged."""
        accuracies = []
        for first in range(0, len(seeds), _RUNS_AT_ONCE):
            chosen = seeds[first : first + _RUNS_AT_ONCE]
            runs = self._runs_of(len(chosen))
            runs.reset(chosen)
            runs.advance(policy)
            accuracies.append(runs.evaluate(images).accuracy.double().cpu().numpy())
        return np.concatenate(accuracies)

    def compare(self, policy: Policy, sweep: Sequence[float | str], on_arm: Callable[[], None]) -> dict[str, Any]:
        """Run policy, annealed schedule and every fixed temperature on all seeds, and evaluate on the test images.

        The policy must be on the runs' device; ``on_arm`` is called after each of them.

        Return the mean accuracies, and the paired differences of the policy to the schedule, to the best fixed
        temperature in hindsight and to T = 4, and of the schedule to that best one.
        """
        test = self.instance.test_set()
        if test is None:
            raise UsageError(f"{self.instance.name} has no test images to compare on")
        test, seeds = test.to(self.template.device), list(self.instance.seeds)
        fixed = {}
        for bound in sweep:
            temperature = parse_bound(bound, self.template.teacher_deviation)
            fixed[f"{temperature:g}"] = self.accuracies(FixedTemperature(temperature), test, seeds)
            on_arm()
        annealed = self.accuracies(create_rule("anneal").to(self.template.device), test, seeds)
        on_arm()
        own = self.accuracies(policy, test, seeds)
        on_arm()
        best = max(fixed, key=lambda name: float(fixed[name].mean()))
        return {
            "instance": self.instance.name,
            "seeds": [self.instance.seeds.start, self.instance.seeds.stop],
            "teacher_deviation": self.template.teacher_deviation,
            "fixed": {name: float(values.mean()) for name, values in fixed.items()},
            "best_fixed": best,
            "anneal": float(annealed.mean()),
            "policy": float(own.mean()),
            "policy_spread": float(own.std(ddof=1)) if len(own) > 1 else 0.0,
            "to_anneal": _difference(own, annealed),
            "to_best_fixed": _difference(own, fixed[best]),
            "anneal_to_best_fixed": _difference(annealed, fixed[best]),
            "to_t4": _difference(own, fixed["4"]) if "4" in fixed else None,
        }

    def close(self) -> None:
        """Stop the processes that compute the runs, if there are any."""
        for runs in self._runs.values():
            runs.close()
        self._runs.clear()

    def _runs_of(self, count: int) -> ParallelRuns:
        if count not in self._runs:
            self._runs[count] = create_parallel_runs(self.template, count, self._mode)
        return self._runs[count]


def print_held_out(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line per instance: accuracies in percent, differences in points with their intervals."""
    table = Table(title="held-out runs: test accuracy, and paired differences in points with their 95 % interval")
    differences = ("policy - anneal", "policy - best fixed", "anneal - best fixed")
    for column in ("instance", "runs", "best fixed T", "its accuracy", "anneal", "policy", *differences):
        table.add_column(column, justify="left" if column == "instance" else "right")
    for row in rows:
        best = row["best_fixed"]
        first, end = row["seeds"]
        accuracies = (f"{accuracy:.2%}" for accuracy in (row["fixed"][best], row["anneal"], row["policy"]))
        found = (_points(row[key]) for key in ("to_anneal", "to_best_fixed", "anneal_to_best_fixed"))
        table.add_row(row["instance"], str(end - first), best, *accuracies, *found)
    Console(width=160).print(table)


def _difference(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return the mean of ``one - other`` with its bootstrap interval, which is a point for a single run."""
    found = paired_difference(one.tolist(), other.tolist())
    low, high = found.bootstrap_interval or (found.mean, found.mean)
    return {"mean": found.mean, "low": low, "high": high}


def _points(difference: dict[str, float]) -> str:
    mean, low, high = (100.0 * difference[name] for name in ("mean", "low", "high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
