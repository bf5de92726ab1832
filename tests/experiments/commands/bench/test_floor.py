"""The floor computes what plain KD computes, again and again on the same images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small_bench import bench_config

from experiments.commands.bench.benched_run import build_bench_run
from experiments.commands.bench.floor import launch_free_floor
from experiments.commands.bench.rounds import LeftOut


@pytest.mark.cuda
def test_the_replayed_gradients_stay_those_of_the_loss_whatever_else_is_allocated() -> None:
    run = build_bench_run(bench_config("--device", "cuda", "--random-images", "--student", "resnet8"))
    floor = launch_free_floor(run).phases[0][1]
    student = floor.__self__._student
    floor(2)
    expected = [parameter.grad.clone() for parameter in student.parameters()]
    _ = [torch.full((1000, 1000), 1e30, device="cuda") for _ in range(100)]
    floor(1)
    for parameter, gradient in zip(student.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient) or torch.allclose(parameter.grad, gradient, rtol=1e-2, atol=1e-4)
    assert any(gradient.abs().max() > 0 for gradient in expected)


def test_detectors_have_no_floor() -> None:
    with pytest.raises(LeftOut, match="proposals"):
        launch_free_floor(SimpleNamespace(task=object()))
