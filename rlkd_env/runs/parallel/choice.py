"""Which way of computing K runs is the fastest on this machine: measured, not guessed."""

from __future__ import annotations

import math
import statistics
import time
from typing import get_args

import torch

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel.base import ParallelRuns
from rlkd_env.runs.parallel.serial import SerialRuns
from rlkd_env.runs.parallel.stackable import why_not_stacked
from rlkd_env.runs.parallel.stacked import StackedRuns
from rlkd_env.runs.parallel.workers import WorkerRuns, available_cores, why_no_workers
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.captured.update import STEPS_TO_CAPTURE
from rlkd_env.utils.choices import RunMode
from rlkd_env.utils.options import RENAMED_VALUES
from rlkd_env.utils.randomness import seeded

MODES = (*get_args(RunMode), "sequence")
"""``stacked``: one computation for all students; ``workers``: processes; ``serial``: one run after the other, which is
also called by its earlier name ``sequence``."""

_CLASSES: dict[str, type[ParallelRuns]] = {runs.mode: runs for runs in (StackedRuns, WorkerRuns, SerialRuns)}
_NECESSARY_GAIN = 0.9
"""Another way is taken if its time is below this share of the time of serial runs, as times vary."""
_TRIAL_STEPS = 7
_TRIAL_SECONDS = 1.0
_LONG_STEP = 1.0
"""Seconds of a step of all runs from which a trial of two stacked runs comes first, as one of all would take long."""
_chosen: dict[tuple[object, ...], RunMode] = {}


def check_mode(mode: str) -> None:
    """Raise a UsageError that lists the valid names if no run mode has this name."""
    if mode not in MODES:
        raise unknown_name("run mode", mode, MODES)


def create_parallel_runs(template: DistillationRun, num_runs: int, mode: RunMode = "auto") -> ParallelRuns:
    """Create K runs of a template's ingredients; the template is neither started nor changed.

    The mode ``"auto"`` measures a few steps in every mode that can compute these runs and takes the fastest, once in a
    process for each student, number of runs, batch size and device.

    Raises:
        UsageError: if the mode is unknown or cannot compute these runs, or several processes share the template.
    """
    check_mode(mode)
    if template.num_processes > 1:
        raise UsageError(
            f"{num_runs} runs at once need a single process: a run that {template.num_processes} processes share is one"
        )
    name = fastest_mode(template, num_runs) if mode == "auto" else RENAMED_VALUES.get(("run_mode", mode), mode)
    return _CLASSES[name](template, num_runs)


def fastest_mode(template: DistillationRun, num_runs: int, one_seed: bool = False) -> RunMode:
    """Return the fastest way of computing K runs, perhaps all of one seed; serial unless another wins by a tenth."""
    with seeded(0, template.device):
        student = template.create_student().to(template.device)
        parts = [student, template.create_method(student), template.teacher]
    work = (repr(template.task.engine), template.views, template.teacher_cache_bytes, type(template.sampler))
    shapes = (template.splits.train.image_shape, len(template.probe), template.reward.name, template.reward.interval)
    key = (
        *((type(part), repr(part)) for part in parts),
        *(num_runs, one_seed, template.batch_size, template.device, torch.get_num_threads()),
        *work,
        *shapes,
    )
    if key not in _chosen:
        _chosen[key] = _measure(template, num_runs, one_seed)
    return _chosen[key]


def _measure(template: DistillationRun, num_runs: int, one_seed: bool) -> RunMode:
    few = min(num_runs, 2)  # the time of serial runs is the sum of their times
    seconds_of_few = seconds_per_step(SerialRuns(template, few), one_seed)
    best: RunMode = "serial"
    best_seconds = seconds_of_few * num_runs / few * _NECESSARY_GAIN
    others: list[type[ParallelRuns]] = []
    if why_not_stacked(template) is None and (
        best_seconds < _LONG_STEP or _seconds_of(StackedRuns, template, few, one_seed, seconds_of_few) < seconds_of_few
    ):
        others.append(StackedRuns)
    if num_runs > 1 and available_cores() > 1 and why_no_workers(template) is None:
        others.append(WorkerRuns)
    for candidate in others:
        seconds = _seconds_of(candidate, template, num_runs, one_seed, best_seconds)
        if seconds < best_seconds:
            best, best_seconds = candidate.mode, seconds
    return best


def _seconds_of(
    candidate: type[ParallelRuns], template: DistillationRun, num_runs: int, one_seed: bool, best_seconds: float
) -> float:
    """Return the time of a step of these runs, which is infinite if the device has not the memory for them."""
    try:
        runs = candidate(template, num_runs)
        seconds = seconds_per_step(runs, one_seed, patience=5 * best_seconds)
    except torch.OutOfMemoryError:
        return math.inf
    runs.close()
    return seconds


def seconds_per_step(runs: ParallelRuns, one_seed: bool = False, patience: float = float("inf")) -> float:
    """Measure a few steps of runs, which must be reset or restored afterwards, all of one seed or each of its own.

    Return the median time, or that of the first step if it takes longer than ``patience`` seconds.
    """
    seeds = [0] * runs.num_runs if one_seed else range(runs.num_runs)
    runs.reset(seeds)
    temperature = Temperature.shared(torch.full((runs.num_instances,), 4.0, device=runs.device))
    warm_up = STEPS_TO_CAPTURE if runs.template.task.engine.captured else 1
    times: list[float] = []
    while len(times) < warm_up + _TRIAL_STEPS and (len(times) <= warm_up or sum(times[warm_up:]) < _TRIAL_SECONDS):
        if runs.finished:
            runs.reset(seeds)
        start = time.perf_counter()
        runs.step(temperature)
        if runs.device.type == "cuda":
            torch.cuda.synchronize(runs.device)
        times.append(time.perf_counter() - start)
        if times[0] > patience:
            return times[0]
    return statistics.median(times[warm_up:])


def seconds_alone(run: DistillationRun) -> float:
    """Return the time of a step of one run, which must be reset or restored afterwards."""
    return seconds_per_step(SerialRuns(run, 1), one_seed=True)
