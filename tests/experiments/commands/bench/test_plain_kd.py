"""The baseline is no straw man."""

from __future__ import annotations

import numpy as np
import torch
from small_bench import bench_config

from agents.rules.simple import FixedTemperature
from experiments.commands.bench.benched_run import build_bench_run
from experiments.commands.bench.plain_kd import plain_kd


def test_plain_kd_is_what_a_run_at_one_temperature_does() -> None:
    """The baseline is no straw man: it makes the same updates as the run."""
    config = bench_config("--precision", "float32")
    run = build_bench_run(config)
    run.reset(0)
    torch.manual_seed(0)
    baseline_run = build_bench_run(config)
    students: list[torch.nn.Module] = []
    create = baseline_run.create_student

    def remember() -> torch.nn.Module:
        torch.manual_seed(0)
        students.append(create())
        return students[-1]

    baseline_run.create_student = remember
    plain_kd(baseline_run, baseline_run.task.engine)(12)
    run.advance(FixedTemperature(4.0), 12)
    for plain, ours in zip(students[-1].parameters(), run.student.parameters(), strict=True):
        np.testing.assert_allclose(plain.detach(), ours.detach(), rtol=1e-3, atol=1e-5)
