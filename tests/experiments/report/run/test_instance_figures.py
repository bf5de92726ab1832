"""The figures of instances draw what the trace holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_reports import (
    drawn,
)

from experiments.report.run.instance_figures import (
    describe_temperatures,
    draw_reward_against_temperature,
    draw_single_epochs,
    draw_temperature_against_confidence,
    draw_temperature_by_class,
)
from experiments.report.run.loading import RunRecord
from rlkd_env.utils.files import write_tensors


def test_rewards_are_drawn_against_temperatures(run: Path) -> None:
    generator = np.random.default_rng(0)
    temperature = generator.uniform(1, 9, 4000)
    trace = {name: torch.zeros(4000) for name in ("epoch", "step", "index", "teacher_confidence", "student_margin")}
    trace |= {"label": torch.arange(4000.0) % 30, "temperature": torch.from_numpy(temperature + np.arange(4000) % 30)}
    trace["reward"] = -trace["temperature"]
    trace["epoch"] = torch.full((4000,), 9.0)  # after the warm-up
    trace["step"] = (torch.arange(4000) // 400).float()
    trace["teacher_confidence"] = torch.rand(4000)
    write_tensors(run / "trace.safetensors", trace)
    record = RunRecord.read(run)
    drawing = draw_reward_against_temperature(record)
    container = drawn(drawing).containers[0]
    middle, mean = container[0].get_data()
    assert list(mean) == pytest.approx(list(-middle), rel=0.1)
    assert "is −1.00" in drawing.caption
    assert "All intervals overlap" not in drawing.caption
    by_class = draw_temperature_by_class(record)  # 30 of them, in order of their median
    _, median = drawn(by_class).lines  # the first one marks 1
    assert len(median.get_ydata()) == 30
    assert list(median.get_ydata()) == sorted(median.get_ydata())
    assert "(class 0)" in by_class.caption
    assert "(class 29)" in by_class.caption


def test_a_schedule_does_not_hide_what_hard_images_get(run: Path) -> None:
    """Batches of falling temperatures; in each the images that the teacher is least sure of get twice the others' T."""
    steps = torch.arange(50.0).repeat_interleave(40)
    confidence = torch.linspace(0.01, 0.99, 40).repeat(50)
    schedule = 16.0 * 0.9**steps
    trace = {name: torch.zeros(2000) for name in ("index", "label", "student_margin", "reward")}
    trace |= {"step": steps, "epoch": steps + 9.0, "teacher_confidence": confidence}
    trace["temperature"] = torch.where(confidence < 0.25, 2.0, 1.0) * schedule
    write_tensors(run / "trace.safetensors", trace)
    record = RunRecord.read(run)
    words = describe_temperatures(record)
    assert "the teacher is surest of got 1.00 times the batch's median temperature" in words
    assert "the quarter that it is least sure of 2.00 times." in words
    by_confidence = draw_temperature_against_confidence(record)
    medians = next(line for line in drawn(by_confidence).lines if line.get_label() == "median").get_ydata()
    assert medians[0] == pytest.approx(2.0)
    assert medians[-1] == pytest.approx(1.0)
    epochs = [line for line in drawn(draw_single_epochs(record)).lines if line.get_label().startswith("epoch ")]
    assert [line.get_label() for line in epochs] == ["epoch 9", "epoch 25", "epoch 42", "epoch 58"]
    for line, step in zip(epochs, (0, 16, 33, 49), strict=True):
        assert line.get_ydata()[-1] == pytest.approx(float(16.0 * 0.9**step), rel=1e-4)
    alike = {**trace, "temperature": schedule}
    write_tensors(run / "trace.safetensors", alike)
    record = RunRecord.read(run)
    assert draw_temperature_against_confidence(record) is None
    assert "all images of a batch get the same one" in describe_temperatures(record)
