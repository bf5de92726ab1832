"""The figures of instances draw what the trace holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_reports import (
    drawn,
)

from experiments.report.run.instance_figures import draw_reward_against_temperature, draw_temperature_by_class
from experiments.report.run.loading import RunRecord
from rlkd_env.utils.files import write_tensors


def test_rewards_are_drawn_against_temperatures(run: Path) -> None:
    generator = np.random.default_rng(0)
    temperature = generator.uniform(1, 9, 4000)
    trace = {name: torch.zeros(4000) for name in ("epoch", "step", "index", "teacher_confidence", "student_margin")}
    trace |= {"label": torch.arange(4000.0) % 30, "temperature": torch.from_numpy(temperature + np.arange(4000) % 30)}
    trace["reward"] = -trace["temperature"]
    trace["step"] = torch.arange(4000.0)
    write_tensors(run / "trace.safetensors", trace)
    record = RunRecord.read(run)
    drawing = draw_reward_against_temperature(record)
    container = drawn(drawing).containers[0]
    middle, mean = container[0].get_data()
    assert list(mean) == pytest.approx(list(-middle), rel=0.1)
    assert "is −1.00" in drawing.caption
    assert "All intervals overlap" not in drawing.caption
    by_class = draw_temperature_by_class(record)  # 30 of them, in order of their median
    (median,) = drawn(by_class).lines
    assert len(median.get_ydata()) == 30
    assert list(median.get_ydata()) == sorted(median.get_ydata())
    assert "(class 0)" in by_class.caption
    assert "(class 29)" in by_class.caption
