"""Runs of a comparison that are made as one computation, because only their temperatures differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack

from agents.rules.create import RULES
from experiments.compare.plan import PlannedRun
from experiments.compare.work import CountEpochs, EpochCounter, Outcome, check_not_stopped, make_run
from experiments.config.choice import AgentChoice, RuleChoice
from experiments.config.distill import AgentConfig
from experiments.session.folder import CHECKPOINT_FOLDER
from experiments.session.lockstep import execute_together, pays_off
from experiments.session.prepare import prepare
from experiments.session.summary import write_summary
from experiments.threads import using_threads
from rlkd_env.utils.memo import Memo

Unit = tuple[PlannedRun, ...]
"""Runs that are handed out together; most often a single one."""


def as_units(runs: Sequence[PlannedRun], together: bool) -> list[Unit]:
    """Return runs as units, in the order of their first runs.

    If they may be made ``together``, runs of one task and seed are a unit where they differ in nothing but a rule or a
    saved policy. A run that was interrupted goes on alone.
    """
    units: dict[str, list[PlannedRun]] = {}
    for run in runs:
        units.setdefault(_shared_settings(run) if together and _can_join(run) else run.name, []).append(run)
    return [tuple(unit) for unit in units.values()]


def _can_join(run: PlannedRun) -> bool:
    config, choice = run.config, run.config.agent.choice
    learns = isinstance(choice, AgentChoice) or (isinstance(choice, RuleChoice) and _learns_along(choice.name))
    is_alone = learns or config.population.size or config.output.tensorboard or config.output.patience
    return not is_alone and not (config.folder / CHECKPOINT_FOLDER).is_dir()


def _learns_along(rule: str) -> bool:
    kind = RULES[rule]
    return kind.has_gradient and not kind.is_function


def _shared_settings(run: PlannedRun) -> str:
    own = AgentConfig.option_names()
    shared = {name: value for name, value in run.config.settings().items() if name not in own}
    return json.dumps([run.task, shared], sort_keys=True)


def make_unit(unit: Unit, threads: int, count: CountEpochs, memo: Memo | None = None) -> list[Outcome]:
    """Execute the runs of a unit as one computation if that is possible and faster, otherwise one after the other."""
    if len(unit) > 1:
        with using_threads(threads):
            outcomes = _make_together(unit, count, memo)
        if outcomes is not None:
            return outcomes
    return [make_run(run, threads, count, memo) for run in unit]


def _make_together(unit: Unit, count: CountEpochs, memo: Memo | None) -> list[Outcome] | None:
    """Execute runs as one; return None if they cannot be or it does not pay, and if anything goes wrong."""
    counters = [EpochCounter(run.config.run.recipe.epochs, count) for run in unit]
    try:
        sessions = [prepare(run.config.replaced(overwrite=True), memo=memo) for run in unit]
        if not pays_off(sessions):
            return None
        for session, counter in zip(sessions, counters, strict=True):
            session.watchers.append(counter)
        with ExitStack() as stack:
            for session in sessions:
                stack.enter_context(session.alone_in_folder())
            execute_together(sessions)
            outcomes = [
                Outcome(run, write_summary(session, together=len(unit)))
                for run, session in zip(unit, sessions, strict=True)
            ]
    except Exception as error:  # each run alone will tell, or do better
        check_not_stopped(error)
        for counter in counters:
            counter.take_back()
        return None
    for counter in counters:
        counter.end()
    return outcomes
