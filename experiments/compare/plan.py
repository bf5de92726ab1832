"""The runs of a comparison: each is what ``rlkd distill`` does with the options of its task and arm, and a seed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.compare.arms import Options, baseline_of, create_arms
from experiments.compare.tasks import PlannedTask, chosen, create_tasks
from experiments.config import CompareConfig, DistillConfig, config_hash
from experiments.config.presets import laid_over, read_layers
from experiments.session.folder import CONFIG_FILE, RUN, SUMMARY_FILE, Summary, check_replaceable
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.files import read_json
from rlkd_env.utils.options import renamed

_OPTIONS_OF = {
    "method": "method_options",
    "student": "student_options",
    "teacher": "teacher_options",
}
"""Options whose own arguments are another option: who names another method does not mean the former's arguments. Those
of who sets the temperatures are minded where layers are merged."""
Settings = dict[str, Any]
_FIGURES = ("student_test_accuracy", "student_last_test_accuracy", "student_epoch", "mean_temperature", "diverged")
_COMPARED = (*_FIGURES, "seconds", "cpu_seconds", "agent_seconds", "device")
"""What a comparison reads of a run's summary."""
_SET_BY_COMPARISON = (
    "seed",
    "out",
    "overwrite",
    "resume",
    "checkpoint_seconds",
    "progress",
    "tensorboard",
    "trust",
    "force",
    "dry_run",
)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison."""

    task: str
    arm: str
    config: DistillConfig

    @property
    def seed(self) -> int:
        """The seed of student, batches and agent."""
        return self.config.output.seed

    @property
    def name(self) -> str:
        """The run's name in messages, and its path below the folder of runs."""
        return f"{self.task}/{self.arm}/seed{self.seed}"

    @cached_property
    def hash(self) -> str:
        """The hash of the settings, the seed among them; it is asked for several times, and takes a while."""
        return config_hash(self.config.settings())

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of the finished run in its folder, or None if it is not finished with these settings."""
        path = self.config.folder / SUMMARY_FILE
        summary = read_json(path, Summary) if path.is_file() else {}
        if summary.get("config_hash") != self.hash:
            return None
        if missing := [name for name in _COMPARED if name not in summary]:
            raise UsageError(f"{path} is damaged: it lacks {missing[0]}; delete it to make the run again")
        return summary

    def has_other_settings(self) -> bool:
        """Whether its folder holds a run that was started with other settings."""
        path = self.config.folder / CONFIG_FILE
        return path.is_file() and renamed(read_json(path, Settings)) != self.config.settings()


@dataclass(frozen=True)
class Plan:
    """What a comparison consists of.

    ``arms`` are those of all tasks, with their options on the first task that has them. Runs are in the order of their
    seeds, so that a comparison that is stopped early has all arms. ``chosen`` are those that are to be made now if they
    are missing.
    """

    tasks: dict[str, PlannedTask]
    arms: dict[str, Options]
    baseline: str
    runs: list[PlannedRun]
    chosen: list[PlannedRun]

    def runs_of(self, task: str, arm: str) -> list[PlannedRun]:
        """Return the runs of a task and arm, seed by seed."""
        return self._by_place.get((task, arm), [])

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], list[PlannedRun]]:
        found: dict[tuple[str, str], list[PlannedRun]] = {}
        for run in self.runs:
            found.setdefault((run.task, run.arm), []).append(run)
        return found


def make_plan(config: CompareConfig) -> Plan:
    """Return the runs that a comparison's options mean; nothing is read but configs."""
    options = config.comparison
    arms = create_arms(config)
    baseline = baseline_of(config, arms)
    tasks = create_tasks(config, arms, baseline)
    for task in tasks.values():
        arms = arms | {arm: of_arm for arm, of_arm in task.arms.items() if arm not in arms}
    for name in (*tasks, *arms):
        if not re.fullmatch(r"[\w=.,+-]*\w", name):
            raise UsageError(f"{name!r} cannot name a folder: use letters, digits and any of = . , + - _")
    configs = {
        (name, arm): _distill_config(config, name, task.options, arm, task.arms[arm])
        for name, task in tasks.items()
        for arm in arms
        if arm in task.arms
    }
    runs = [
        PlannedRun(task, arm, _with_seed(config, distill, f"{task}/{arm}", options.first_seed + number))
        for number in range(max(task.seeds for task in tasks.values()))
        for (task, arm), distill in configs.items()
        if number < tasks[task].seeds
    ]
    return Plan(tasks, arms, baseline, runs, _chosen(options.only, runs))


def _chosen(only: Iterable[str], runs: list[PlannedRun]) -> list[PlannedRun]:
    if not only:
        return runs
    names = {run.name: [run.task, f"{run.task}/{run.arm}", run.name] for run in runs}
    found = set(chosen("task (or TASK/ARM, TASK/ARM/seedN)", only, names))
    return [run for run in runs if run.name in found]


def check_folders(runs: Iterable[PlannedRun], overwrite: bool) -> None:
    """Make sure that no run of other settings is in the way, and nothing that is no run at all."""
    for run in runs:
        if not run.summary():
            check_replaceable(run.config.folder, RUN)
        if not overwrite and run.has_other_settings():
            settings, stored = run.config.settings(), renamed(read_json(run.config.folder / CONFIG_FILE, Settings))
            names = [name for name in {**settings, **stored} if settings.get(name) != stored.get(name)]
            raise UsageError(
                f"{run.config.folder} holds a run with another {' and '.join(names)}: "
                "add --overwrite to replace such runs, or take another --out"
            )


def _distill_config(config: CompareConfig, task: str, of_task: Options, arm: str, of_arm: Options) -> DistillConfig:
    """Lay an arm's options over the task's, and these over the comparison's."""
    try:
        options = _laid_over_choices(config.common(), _expanded(of_task))
        return DistillConfig.from_keywords(_laid_over_choices(options, _expanded(of_arm)))
    except UsageError as error:
        raise UsageError(f"arm {arm} on task {task}: {error}") from None


def _expanded(layer: Options) -> Options:
    """Put what a preset and a config file hold under the other options."""
    valid = [name for name in DistillConfig.option_names() if name not in _SET_BY_COMPARISON]
    for name in layer:
        if name not in valid:
            raise unknown_name("option", name, valid)
    options = dict(layer)
    below = read_layers(options.pop("preset", None), options.pop("config", None), "distill", valid)
    return laid_over(below, options)


def _laid_over_choices(below: Options, above: Options) -> Options:
    below = dict(below)
    for choice, arguments in _OPTIONS_OF.items():
        if choice in above and above[choice] != below.get(choice):
            below.pop(arguments, None)
    return laid_over(below, above)


def _with_seed(config: CompareConfig, distill: DistillConfig, path: str, seed: int) -> DistillConfig:
    folder = config.folder / "runs" / path / f"seed{seed}"
    own = {"tensorboard": config.comparison.tensorboard, "force": config.comparison.force}
    return distill.replaced(own, seed=seed, out=str(folder), progress=False)
