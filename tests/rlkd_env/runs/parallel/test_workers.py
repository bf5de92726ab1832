"""Worker processes that fail, that are gone, and that cannot be."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.parallel.workers import WorkerRuns, why_no_workers
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


def fixed(value: float = 4.0) -> Callable[[InstanceOutputs], Temperature]:
    return lambda outputs: Temperature.shared(torch.full(outputs.labels.shape, value))


def layers() -> tuple[nn.Module, ...]:
    return nn.Flatten(), nn.Linear(64, 10)


class Failing(nn.Sequential):
    """Fails at the first image whose training began."""

    def forward(self, images: Tensor) -> Tensor:
        raise ArithmeticError("as the user's network may")


def test_a_failure_in_a_worker_is_told_and_ends_all(make_run: MakeRun) -> None:
    run = make_run()
    run.create_student = lambda: Failing(*layers())
    runs = WorkerRuns(run, 3, num_workers=2)
    processes = runs._processes
    with pytest.raises(RuntimeError, match="as the user's network may"):
        runs.reset([0, 1, 2])
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(RuntimeError, match="closed"):
        runs.reset([0, 1, 2])


@pytest.mark.slow
def test_workers_that_are_gone_are_told_and_closing_twice_is_fine(make_run: MakeRun) -> None:
    runs = WorkerRuns(make_run(), 2, num_workers=2)
    runs.reset([0, 1])
    pid = runs._processes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="gone"):
        runs.advance(fixed())
    runs.close()


def test_workers_are_refused_where_they_cannot_be(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    assert why_no_workers(run) is None
    monkeypatch.setattr("rlkd_env.runs.parallel.workers.sys.platform", "win32")
    with pytest.raises(UsageError, match="Linux only"):
        create_parallel_runs(run, 2, "workers")
    monkeypatch.undo()
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert "fork" in str(why_no_workers(run))
    monkeypatch.undo()
    run.device = torch.device("meta")
    assert "share" in str(why_no_workers(run))
