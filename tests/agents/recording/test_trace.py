"""What the trace of instances holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recorded import rising, watched
from watching import watch

from agents.recording.history import RunHistory
from agents.recording.trace import InstanceTrace
from rlkd_env.runs.run import DistillationRun


def without_clock(history: RunHistory) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history.epochs]


def test_records_that_are_restored_in_the_middle_of_an_epoch_go_on_bit_for_bit(
    make_run: Callable[..., DistillationRun],
) -> None:
    run = make_run(epochs=10)
    history, trace, _ = watched(run)
    run.reset(0)
    run.advance(rising, 14)
    states = run.state_dict(), history.state_dict(), trace.state_dict()
    run.advance(rising)

    other = make_run(epochs=10)
    later_history, later_trace, _ = watched(other)
    other.load_state_dict(states[0])
    later_history.load_state_dict(states[1], other.device)
    later_trace.load_state_dict(states[2])
    other.advance(rising)
    assert without_clock(later_history) == without_clock(history)
    expected, found = trace.tensors(), later_trace.tensors()
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def test_the_trace_notes_what_the_instances_were_and_got(make_run: Callable[..., DistillationRun]) -> None:
    run = make_run(epochs=10)
    _, trace, recorder = watched(run)
    run.reset(0)
    run.advance(rising)
    told = trace.tensors()
    steps = told["step"].unique().tolist()
    assert len(steps) == 5  # one of every 8 updates
    assert [(step - 1) // 8 for step in steps] == [0, 1, 2, 3, 4]
    for step in steps:
        rows = told["step"] == step
        result = recorder.results[step - 1]
        outputs = result.outputs
        assert torch.equal(told["temperature"][rows], result.temperature.student)
        assert torch.equal(told["index"][rows], outputs.indices)
        assert torch.equal(told["label"][rows].long(), outputs.labels)
        assert torch.equal(told["label"][rows].long(), run.splits.train.labels[told["index"][rows]])
        assert told["epoch"][rows].unique().tolist() == [(step - 1) // 4 + 1]
        first, second = outputs.student_logits.detach().softmax(1).topk(2).values.unbind(1)
        torch.testing.assert_close(told["student_margin"][rows], first - second, rtol=1e-4, atol=1e-6)
        confidence = outputs.teacher_logits.softmax(1)[torch.arange(64), outputs.labels]
        torch.testing.assert_close(told["teacher_confidence"][rows], confidence, rtol=1e-4, atol=1e-6)
    assert told["reward"].isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 640])
def test_the_trace_is_bounded_and_reaches_over_the_whole_run(
    rows: int, make_run: Callable[..., DistillationRun]
) -> None:
    run = make_run(epochs=40)
    trace = InstanceTrace(rows)
    run.reset(0)
    noted = [step for step in range(1, run.total_steps + 1) if trace.is_noted(run, step)]
    interval = -(-run.total_steps * 64 // rows)
    assert len(noted) * 64 <= rows + 64
    assert noted[0] <= interval
    assert noted[-1] > run.total_steps - 2 * interval
    watch(run, trace)
    run.advance(rising)
    assert 0 < len(trace.tensors()["step"]) <= rows


def test_rewards_belong_to_the_update_that_was_made_last(make_run: Callable[..., DistillationRun]) -> None:
    run = make_run(epochs=10)
    _, trace, _ = watched(run)
    run.reset(0)
    for step in range(1, run.total_steps + 1):
        run.advance(rising, 1)
        trace.add_rewards(np.full(64, step, np.float32))
    trace.add_rewards(np.zeros(64, np.float32))  # of a step that only starts the next run
    told = trace.tensors()
    assert torch.equal(told["reward"], told["step"].float())
