"""What the parts of a step cost on their own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from experiments.commands.bench.plain_kd import TEMPERATURE
from experiments.commands.bench.rounds import wait_for
from rlkd_env.data import BatchStream
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.reward import Measurement
from rlkd_env.runs.run import DistillationRun

_SECONDS, _LEAST, _MOST = 1.5, 3, 32


def cost_by_part(run: DistillationRun) -> dict[str, float]:
    """Return the median milliseconds of each part of a step on its own."""
    run.reset(0)
    engine, batch = run.task.engine, run.batch
    images = engine.images(batch.images)
    temperature = Temperature.shared(torch.full((run.batch_size,), TEMPERATURE, device=run.device))
    frozen = run.frozen_teacher
    stream = BatchStream(run.splits.train, run.recipe.batch_size, seed=0)
    steps_of_stream = itertools.count()
    measurement = Measurement(run.outputs, partial(run.task.evaluate_probe, run.student), run.probe, run.probe_parts)
    losses: list[Tensor] = []

    def forward_teacher() -> None:
        with torch.no_grad():
            engine.forward(frozen, images)

    def make_loss() -> None:
        outputs = run.task.forward(run.student, frozen, replace(batch, teacher_logits=run.outputs.teacher_logits))
        losses[:] = [torch.stack(list(run.method(outputs, temperature).values())).sum(dim=0).mean()]

    networks: dict[str, Callable[[], object]] = {"teacher": forward_teacher, "student_and_loss": make_loss}
    if not run.task.follows_logits:  # the teacher classifies the student's proposals
        networks = {"networks_and_loss": make_loss}
    parts: dict[str, Callable[[], object]] = {
        "batch": lambda: stream.batch(next(steps_of_stream)),
        **networks,
        "backward": lambda: losses[0].backward(),
        "optimizer": run.update.optimization.optimizer.step,
        "state": lambda: run.state(replace(run.outputs)),
        "reward": lambda: run.reward.after_update(measurement, is_last=False),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    started = time.perf_counter()
    for number in range(_MOST):
        if number >= _LEAST and time.perf_counter() - started > _SECONDS:
            break
        for name, part in parts.items():
            before = time.perf_counter()
            part()
            wait_for(run.device)
            times[name].append(1e3 * (time.perf_counter() - before))
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}
