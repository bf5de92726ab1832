"""Records of runs in lock-step are those of the same runs alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded import rising
from watching import watch

from agents.recording.lockstep import LockstepRecorder
from agents.recording.record import RunRecord
from agents.recording.timing import PartTimer
from agents.rules.by_run import PolicyByRun
from agents.rules.simple import FixedTemperature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import ParallelRuns, create_parallel_runs
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]
RULES = [FixedTemperature(2.0), rising]


def recorded(run: DistillationRun, mode: str = "serial") -> tuple[ParallelRuns, list[RunRecord], LockstepRecorder]:
    runs, timer = create_parallel_runs(run, 2, mode), PartTimer()  # type: ignore[arg-type]
    records = [RunRecord(timer) for _ in range(2)]
    recorder = LockstepRecorder(records, timer)
    runs.add_hook(recorder)
    return runs, records, recorder


def recorded_alone(run: DistillationRun, rule: Any, seed: int = 3) -> RunRecord:
    record = RunRecord(PartTimer())
    watch(run, *record.hooks)
    run.reset(seed)
    run.advance(rule)
    return record


def plain(record: RunRecord) -> dict[str, Any]:
    """What is known of a run, but for the time that it took."""
    selection = record.selection.state_dict()
    epochs = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in record.history.epochs]
    return {"epochs": epochs, **{name: value for name, value in selection.items() if "student" not in name}}


def assert_same(record: RunRecord, alone: RunRecord) -> None:
    assert plain(record) == plain(alone)
    for one, other in (
        (record.selection.best_student, alone.selection.best_student),
        (record.selection.last_student, alone.selection.last_student),
        (record.trace.tensors(), alone.trace.tensors()),
    ):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert record.steps == alone.steps
    assert record.diverged == alone.diverged
    assert record.mean_temperature == pytest.approx(alone.mean_temperature)


@pytest.mark.parametrize("mode", ["serial", "workers"])
def test_every_record_is_that_of_the_run_alone(make_run: MakeRun, mode: str) -> None:
    run = make_run(epochs=6)
    runs, records, recorder = recorded(run, mode)
    runs.reset([3, 3])
    runs.advance(PolicyByRun(RULES))
    runs.close()
    assert recorder.steps == 24
    for rule, record in zip(RULES, records, strict=True):
        assert_same(record, recorded_alone(run.sibling(), rule))


def test_the_record_of_a_run_that_diverges_ends_with_its_epoch(make_run: MakeRun) -> None:
    def infinite(outputs: InstanceOutputs) -> Temperature:
        return Temperature.shared(torch.full(outputs.labels.shape, 1e30 if outputs.step == 5 else 4.0))

    run = make_run(epochs=4)
    runs, records, recorder = recorded(run)
    runs.reset([3, 3])
    runs.advance(PolicyByRun([infinite, RULES[0]]))
    assert recorder.diverged.tolist() == [True, False]
    for rule, record, steps in zip((infinite, RULES[0]), records, (8, 16), strict=True):
        alone = recorded_alone(run.sibling(), rule)
        if steps == 8:  # of a run that has diverged, each further update is punished only where it is alone
            for one in (record, alone):
                del one.history.epochs[-1]["reward"]
        assert plain(record) == plain(alone)
        assert (record.steps, record.diverged) == (alone.steps, alone.diverged) == (steps, steps == 8)


def test_a_restored_recorder_goes_on_in_the_middle_of_an_epoch(make_run: MakeRun) -> None:
    run, policy = make_run(epochs=3), PolicyByRun(RULES)
    runs, records, recorder = recorded(run)
    runs.reset([3, 3])
    runs.advance(policy, 6)
    state = {"runs": runs.state_dict(), "recorder": recorder.state_dict()}
    others, other_records, other_recorder = recorded(run)
    others.load_state_dict(state["runs"])
    other_recorder.load_state_dict(state["recorder"], others)
    assert other_recorder.steps == 6
    for one in (runs, others):
        one.advance(policy)
    for one, other in zip(records, other_records, strict=True):
        assert_same(one, other)
