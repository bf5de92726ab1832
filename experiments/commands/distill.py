"""``rlkd distill``: from a teacher to a student, with an agent, a saved policy or a rule at the temperatures."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from experiments.config import DistillConfig
from experiments.next_command import distill_words, tell_next
from experiments.session.checkpoints import RunInterrupted
from experiments.session.distributed import distill_together
from experiments.session.folder import CHECKPOINT_FOLDER, CONFIG_FILE
from experiments.session.population.session import PopulationSession
from experiments.session.prepare import prepare
from experiments.session.session import DistillSession
from experiments.session.summary import check_run_folder, complete
from experiments.session.telling.table import print_summary
from experiments.signals import exit_code, tell_stop
from rlkd_env.errors import AgentDiverged, UsageError
from rlkd_env.runs.parallel import seconds_alone
from rlkd_env.utils.processes import started_processes
from rlkd_env.utils.randomness import seeded

_SENSIBLE = (0.05, 200.0)
"""Temperatures beyond which losses are all zero or all huge."""


def run_distill(config: DistillConfig) -> int:
    """Make a run, alone or with torchrun's other processes; return 1 if it diverged or a process was lost."""
    if started_processes() > 1:
        if config.population.size:
            raise UsageError("a population needs a single process: start it without torchrun")
        return distill_together(config, _finish)
    if config.output.dry_run:
        return _tell_plan(config)
    if check_run_folder(config.folder, config.output):
        return 0
    session = prepare(config, chooses_threads=True)
    if isinstance(session, PopulationSession) and not config.output.resume:
        print(session.cost())
    return _finish(session)


def _tell_plan(config: DistillConfig) -> int:
    """Build a run, and say what it is, what it would cost and where it would go; its folder is not touched."""
    session = prepare(config, writes=False, chooses_threads=True)
    run, splits = session.run, session.run.splits
    parts = {"train": splits.train, "probe": run.probe, "validation": splits.validation}
    networks = {"teacher": run.teacher, "student": run.create_student()}
    seconds = seconds_alone(run)
    cost = f"about {1e3 * seconds:.2f} ms each, {seconds * run.total_steps:.1f} s in all"
    cost += ", without what the agent adds" if session.phases.learns else ""
    told = {
        "images": ", ".join(f"{name} {len(images):,}" for name, images in parts.items()),
        "networks": ", ".join(f"{name} {_parameters(one):,} parameters" for name, one in networks.items()),
        "temperatures": f"from {session.choice.label}, method {config.run.distillation.method}",
        "updates": f"{run.total_steps:,} of {run.batch_size} images ({config.run.recipe.epochs} epochs)",
        "cost": session.cost() if isinstance(session, PopulationSession) else cost,
        "device": f"{run.device}, {torch.get_num_threads()} threads",
        "folder": f"{config.folder}{' (there is a run in it)' if (config.folder / CONFIG_FILE).exists() else ''}",
    }
    for name, text in told.items():
        print(f"{name + ':':14}{text}")
    tell_next(*distill_words(config.as_keywords(), config.output.preset), *_where(config))
    return 0


def _where(config: DistillConfig) -> list[str]:
    return [] if config.output.out == "auto" else ["--out", config.output.out]


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _finish(
    session: DistillSession, leading: Callable[[DistillSession], AbstractContextManager[Any]] = nullcontext
) -> int:
    """Make the run that is prepared, and tell the user what came of it."""
    folder, run, records = session.folder, session.run, session.records
    try:
        summary = complete(session, leading)
    except RunInterrupted as stop:
        tell_stop(
            f"interrupted at update {records.steps} of {run.total_steps}: "
            f"student, policy and checkpoint are in {folder}; go on with: rlkd distill --resume --out {folder}"
        )
        return exit_code(stop)
    except OSError as error:
        if folder is None:
            raise
        told = str(error) if str(folder) in str(error) else f"{folder}: {error}"  # TensorBoard's do not name a file
        if any((folder / CHECKPOINT_FOLDER).glob("*.pt")):
            told += f"; the last checkpoint is in {folder}: go on with --resume"
        raise UsageError(told) from error
    except AgentDiverged as error:
        print(f"rlkd: {error}", file=sys.stderr)
        return 1
    print_summary(summary, folder)
    if records.diverged:
        kept = f"the last good student is in {folder}" if records.selection.last_student else "there is no good student"
        print(
            f"rlkd: the run diverged at update {records.steps}: loss, logits or weights are not finite, or weights too "
            f"large; {kept}. {_advice(session)}",
            file=sys.stderr,
        )
        return 1
    return 0


def _advice(session: DistillSession) -> str:
    """Say what a run that has diverged may have diverged for."""
    mean = session.records.mean_temperature
    if mean is None or not _SENSIBLE[0] <= mean <= _SENSIBLE[1]:
        told = "no number" if mean is None else f"{mean:.3g}"
        return f"The mean temperature was {told}: choose temperatures between 0.5 and 20"
    if not _starts_well(session):
        return "Its loss was no number before the first update: look at the student's first weights and at the images"
    return "Try a lower --learning-rate"


def _starts_well(session: DistillSession) -> bool:
    """Return whether the student that a run starts with has a loss on the validation images."""
    run = session.run
    with seeded(session.config.output.seed, run.device):
        student = run.create_student().to(run.device)
    return math.isfinite(float(run.task.evaluate(student, run.splits.validation).loss))
