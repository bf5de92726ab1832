"""Recorded work: what a replay computes, and in whose memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkd_env.models.graphs import RecordedFunction, Recorder

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda])])


@DEVICES
def test_a_replay_does_the_work_on_the_same_memory(device: str) -> None:
    recorder = Recorder(torch.device(device))
    source, target = torch.ones(3, device=device), torch.zeros(3, device=device)
    with recorder.warming_up():
        target.add_(source)
    replay = recorder.record(lambda: target.add_(source))
    assert target.tolist() == [1.0] * 3, "recording does nothing yet"
    source.fill_(2.0)
    replay()
    replay()
    assert target.tolist() == [5.0] * 3


@DEVICES
def test_a_function_is_recorded_for_every_shape(device: str) -> None:
    called: list[int] = []

    def double(values: Tensor) -> Tensor:
        called.append(len(values))
        return 2 * values

    function = RecordedFunction(double, torch.device(device))
    found = []
    for number in range(12):
        values = torch.full((2 + number % 2,), float(number), device=device, requires_grad=True)
        result = function(values)
        assert not result.requires_grad
        found.append(result)
    for number, result in enumerate(found):
        assert result.tolist() == [2.0 * number] * (2 + number % 2), "a result is the caller's own"
    if device == "cuda":
        assert called == [2, 3, 2, 3], "once plainly and once for the record"


@DEVICES
def test_a_function_without_arguments_reads_what_has_changed(device: str) -> None:
    values = torch.zeros(2, device=device)
    function = RecordedFunction(lambda: values + 1, torch.device(device))
    for number in range(4):
        values.fill_(float(number))
        assert function().tolist() == [number + 1.0] * 2


@pytest.mark.cuda
def test_what_cannot_be_recorded_is_called_plainly() -> None:
    function = RecordedFunction(lambda values: values * float(values.sum()), torch.device("cuda"))
    for number in (1.0, 2.0, 3.0):
        assert function(torch.full((2,), number, device="cuda")).tolist() == [2 * number**2] * 2
