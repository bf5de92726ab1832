"""What is drawn for TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watching import watch

from agents.recording import tensorboard
from agents.recording.history import RunHistory
from agents.recording.lockstep import LockstepRecorder
from agents.recording.record import RunRecord
from agents.recording.selection import StudentSelection
from agents.recording.tensorboard import LockstepCurves, TensorBoardCurves
from agents.recording.timing import PartTimer
from agents.rules.by_run import PolicyByRun
from agents.rules.simple import FixedTemperature
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Exploration
from rlkd_env.wrappers.exploration import explore


class RecordingWriter:
    """Keeps what a ``SummaryWriter`` would write, by name."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[float]] = defaultdict(list)
        self.histograms: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.pictures = 0

    @property
    def file_writer(self) -> RecordingWriter:
        return self

    def add_summary(self, summary: Any, step: int) -> None:
        for value in summary.value:
            self.scalars[value.tag].append(value.simple_value)

    def add_histogram(self, name: str, values: torch.Tensor, step: int, bins: object = None) -> None:
        self.histograms[name].append(values.clone())

    def add_image(self, name: str, *arguments: Any, **options: Any) -> None:
        self.pictures += 1


def drawn_curves(run: DistillationRun, seconds: float = 0.0) -> RecordingWriter:
    """The curves of a run that has taken so many seconds before."""
    writer, timer = RecordingWriter(), PartTimer()
    timer.seconds["environment"] = seconds
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
    assert writer.scalars["sampling/mixed_share"] == [0.0, 1.0, 0.0]
    assert len(writer.scalars["student/loss"]) == 3
    assert "student/mixed_share" not in writer.scalars
    drawn = writer.histograms["sampling/score"]
    assert len(drawn) == 3
    assert torch.equal(drawn[-1], explorer.scores[explorer.scores.isfinite()])


def test_a_run_without_an_explorer_draws_no_exploration(make_run: Callable[..., DistillationRun]) -> None:
    writer = drawn_curves(make_run())
    assert not [name for name in (*writer.scalars, *writer.histograms) if name.startswith("sampling")]


def test_the_histogram_is_of_the_logarithm_in_bins_that_are_the_same_everywhere(
    make_run: Callable[..., DistillationRun],
) -> None:
    drawn = drawn_curves(make_run()).histograms["temperature/log2_histogram"]
    assert {float(value) for values in drawn for value in values} == {2.0}


def test_a_run_is_an_episode_whose_return_and_length_grow(make_run: Callable[..., DistillationRun]) -> None:
    scalars = drawn_curves(make_run()).scalars
    lengths, rewards = scalars["rollout/ep_len_mean"], scalars["reward/epoch"]
    assert lengths == [lengths[0], 2 * lengths[0], 3 * lengths[0]]
    assert scalars["rollout/ep_rew_mean"] == pytest.approx([sum(rewards[:epoch]) for epoch in (1, 2, 3)])


def test_runs_in_lock_step_have_their_curves_apart(make_run: Callable[..., DistillationRun]) -> None:
    timer = PartTimer()
    runs, records = create_parallel_runs(make_run(), 2, "stacked"), [RunRecord(timer) for _ in range(2)]
    writers = [RecordingWriter() for _ in records]
    runs.add_hook(LockstepRecorder(records, timer))
    runs.add_hook(LockstepCurves(writers, records, timer))  # type: ignore[arg-type]
    runs.reset([0, 0])
    runs.advance(PolicyByRun([FixedTemperature(2.0), FixedTemperature(8.0)]))
    for writer, record, temperature in zip(writers, records, (2.0, 8.0), strict=True):
        assert writer.scalars["temperature/mean"] == [temperature] * 3
        accuracies = [epoch["validation_accuracy"] for epoch in record.history.epochs]
        assert writer.scalars["student/validation_accuracy"] == pytest.approx(accuracies)


@pytest.mark.parametrize(("seconds", "pictures"), [(0.0, 0), (1000.0, 3)])
def test_pictures_are_drawn_where_there_is_time_for_them(
    seconds: float, pictures: int, make_run: Callable[..., DistillationRun]
) -> None:
    assert drawn_curves(make_run(), seconds).pictures == pictures


def test_events_wait_for_one_another_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "_TOGETHER_SECONDS", 1e9)
    writer = tensorboard.open_curves(tmp_path)
    of_file: Any = writer.file_writer
    handed: list[Any] = []
    add_event = of_file.event_writer._writer.add_event
    monkeypatch.setattr(of_file.event_writer._writer, "add_event", lambda event: (handed.append(1), add_event(event)))
    for step in range(5):
        tensorboard.add_scalars(writer, {"a": float(step)}, step)
    assert not handed
    writer.flush()
    assert len(handed) == 5
    tensorboard.add_scalars(writer, {"a": 5.0}, 5)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("a")
    assert [event.step for event in events] == [0, 1, 2, 3, 4, 5]
