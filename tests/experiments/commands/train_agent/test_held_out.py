"""Held-out runs follow from their seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.commands.train_agent.held_out import HeldOutRuns
from experiments.commands.train_agent.instances import Instance
from rlkd_env.instances.temperature import Temperature


def test_a_held_out_run_is_that_of_its_seed_alone(tmp_path: Path) -> None:
    instance = Instance("one", {"epochs": 2}, range(3, 6))
    held_out = HeldOutRuns(instance, "cpu", "stacked")
    images = held_out.template.splits.validation

    def fixed(outputs: object) -> Temperature:
        return Temperature.shared(torch.full(outputs.labels.shape, 5.0))

    together = held_out.accuracies(fixed, images, [3, 4, 5])
    run = instance.build(probe_images=1, device="cpu")
    run.reset(4)
    run.advance(fixed)
    assert together[1] == pytest.approx(float(run.task.evaluate(run.student, images).accuracy), abs=0.02)
