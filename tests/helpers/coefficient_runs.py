"""A coefficient rule, outputs for it, and runs that it drives."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import ParallelRuns, create_parallel_runs
from rlkd_env.runs.run import DistillationRun

RULE = CoefficientRule(("student_performance", "teacher_uncertainty"))


def outputs(num_runs: int, progress: float = 0.25) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 16 * num_runs, 10, generator=generator)
    labels = torch.randint(10, (16 * num_runs,), generator=generator)
    return InstanceOutputs(student, 4.0 * teacher, labels, progress, num_runs=num_runs)


def level(temperature: Temperature) -> torch.Tensor:
    """The temperatures around which the instances' own logits set those of teacher and student."""
    return temperature.student if temperature.factor is None else temperature.factor.sqrt()


SEEDS = range(100, 200)


def make_runs(make_run: Callable[..., DistillationRun], num_runs: int = 8, **settings: object) -> ParallelRuns:
    return create_parallel_runs(make_run(features=("progress",), **settings), num_runs, "stacked")
