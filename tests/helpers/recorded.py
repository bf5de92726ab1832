"""Runs that are watched, and a rule whose temperatures rise."""

from __future__ import annotations

import torch
from watching import watch

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.recording.trace import InstanceTrace
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun


def rising(outputs: InstanceOutputs) -> Temperature:
    """Temperatures 1 to 4 within every batch, and 1 more in every epoch."""
    count = len(outputs.labels)
    return Temperature.shared(torch.linspace(1.0, 4.0, count) + float(int(outputs.epoch)))


class Recorder(RunHook):
    """Keeps every result."""

    def __init__(self) -> None:
        self.results: list[StepResult] = []

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        self.results.append(result)


def watched(run: DistillationRun, rows: int = 20_000) -> tuple[RunHistory, InstanceTrace, Recorder]:
    timer = PartTimer()
    selection = StudentSelection(timer)
    history, trace, recorder = RunHistory(selection, timer), InstanceTrace(rows), Recorder()
    watch(run, selection, history, trace, recorder)
    return history, trace, recorder
