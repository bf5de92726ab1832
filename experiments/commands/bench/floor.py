"""What no loop on a GPU can undercut: the networks' own kernels, launched by the device itself."""

from __future__ import annotations

import torch

from experiments.commands.bench.plain_kd import image_loss
from experiments.commands.bench.rounds import Arm, LeftOut
from rlkd_env.data import BatchStream
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Classification

FLOOR = "floor"
_WARM_UP = 3


def launch_free_floor(run: DistillationRun) -> Arm:
    """Return an arm that replays one CUDA graph: both networks' forward, the loss and the student's backward.

    Its images stay the same; there is no batch to make, no optimiser, no state and no reward.

    Raises:
        LeftOut: if the run is of detectors, whose proposals wait for the host.
    """
    if not isinstance(run.task, Classification):
        raise LeftOut("a detector's proposals wait for the host, which a CUDA graph cannot")
    return Arm.of(_Floor(run).replay)


class _Floor:
    """The graph, and all that it reads and writes, which must live as long as it does."""

    def __init__(self, run: DistillationRun) -> None:
        self._engine, self._teacher = run.task.engine, run.frozen_teacher
        self._student = self._engine.prepare(run.create_student().to(run.device)).train()
        self._batch = BatchStream(run.splits.train, run.recipe.batch_size, seed=0).batch(0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        self._student.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._compute()

    def _compute(self) -> None:
        image_loss(self._student, self._teacher, self._batch, self._engine).backward()

    def replay(self, steps: int) -> None:
        """Compute so many times."""
        for _ in range(steps):
            self._graph.replay()
