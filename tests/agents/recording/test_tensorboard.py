"""What is drawn for TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from watching import watch

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.tensorboard import TensorBoardCurves
from agents.recording.timing import PartTimer
from agents.rules.simple import FixedTemperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Exploration
from rlkd_env.wrappers.exploration import explore


class RecordingWriter:
    """Keeps what a ``SummaryWriter`` would write, by name."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[float]] = defaultdict(list)
        self.histograms: dict[str, list[torch.Tensor]] = defaultdict(list)

    def add_scalar(self, name: str, value: Any, step: int) -> None:
        self.scalars[name].append(float(value))

    def add_histogram(self, name: str, values: torch.Tensor, step: int) -> None:
        self.histograms[name].append(values.clone())

    def add_image(self, *arguments: Any, **options: Any) -> None:
        """Pictures are looked at elsewhere."""


def drawn_curves(run: DistillationRun) -> RecordingWriter:
    writer, timer = RecordingWriter(), PartTimer()
    selection = StudentSelection(timer)
    history = RunHistory(selection, timer)
    watch(run, selection, history, TensorBoardCurves(writer, history, timer))  # type: ignore[arg-type]
    run.reset(0)
    run.advance(FixedTemperature(4.0))
    return writer


@pytest.mark.slow
def test_an_exploration_is_drawn_once_an_epoch(make_run: Callable[..., DistillationRun]) -> None:
    run = make_run()
    explorer = explore(run, Exploration(first_epoch=2, last_epoch=2, interval=1, first_share=0.9))
    writer = drawn_curves(run)
    assert writer.scalars["exploration/mixed_share"] == [0.0, 1.0, 0.0]
    assert len(writer.scalars["student/loss"]) == 3
    assert "student/mixed_share" not in writer.scalars
    drawn = writer.histograms["exploration/score"]
    assert len(drawn) == 3
    assert torch.equal(drawn[-1], explorer.scores[explorer.scores.isfinite()])


def test_a_run_without_an_explorer_draws_no_exploration(make_run: Callable[..., DistillationRun]) -> None:
    writer = drawn_curves(make_run())
    assert not [name for name in (*writer.scalars, *writer.histograms) if name.startswith("exploration")]
