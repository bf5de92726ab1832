"""The choice of the student, the curves, the timer and the rules."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from watching import watch

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.tensorboard import TensorBoardCurves
from agents.recording.timing import PartTimer
from agents.rules.create import FixedTemperature
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.tasks import Evaluation
from rlkd_env.wrappers.exploration import explore


class ScriptedRun(SimpleNamespace):
    """A run whose validation figures are written down beforehand."""

    def __init__(self, figures: list[tuple[float, float]]) -> None:
        super().__init__(figures=figures, epoch=0, student=nn.Linear(1, 1))

    def end_epoch(self, selection: StudentSelection) -> None:
        self.epoch += 1
        with torch.no_grad():
            self.student.weight.fill_(self.epoch)
        selection.on_epoch_end(self)  # type: ignore[arg-type]

    def evaluate_validation(self) -> Evaluation:
        accuracy, loss = self.figures[self.epoch - 1]
        return Evaluation(torch.tensor(accuracy), torch.tensor(loss), torch.tensor(accuracy))


@pytest.mark.parametrize(
    ("figures", "best", "last"),
    [
        ([(0.5, 1.0), (0.75, 0.9), (0.625, 0.1)], 2, 3),
        ([(0.5, 1.0), (0.5, 0.8), (0.5, 0.9)], 2, 3),  # ties go to the lower loss
        ([(0.5, 1.0), (0.875, math.nan), (0.25, 2.0)], 1, 3),  # what is not finite is never kept
        ([(0.5, 1.0), (0.875, math.inf)], 1, 1),
    ],
)
def test_the_best_and_the_last_good_student_are_kept(figures: list, best: int, last: int) -> None:
    selection, run = StudentSelection(PartTimer()), ScriptedRun(figures)
    for _ in figures:
        run.end_epoch(selection)
    assert selection.best_epoch == best
    assert float(selection.best_student["weight"]) == best
    assert float(selection.last_student["weight"]) == last
    assert (selection.best_accuracy, selection.best_loss) == pytest.approx(figures[best - 1])


def test_a_selection_goes_on_from_its_state() -> None:
    selection, run = StudentSelection(PartTimer()), ScriptedRun([(0.75, 1.0), (0.5, 0.1)])
    run.end_epoch(selection)
    other = StudentSelection(PartTimer())
    other.load_state_dict(selection.state_dict())
    run.end_epoch(other)
    assert (other.best_epoch, selection.best_epoch, other.last_accuracy) == (1, 1, 0.5)
    assert float(other.best_student["weight"]) == 1.0


def test_the_timer_counts_every_second_once() -> None:
    timer = PartTimer()
    started = time.perf_counter()
    with timer.part("outer"):
        time.sleep(0.02)
        with timer.part("inner"):
            time.sleep(0.05)
        time.sleep(0.02)
    total = time.perf_counter() - started
    assert timer.seconds["inner"] == pytest.approx(0.05, abs=0.02)
    assert timer.seconds["outer"] == pytest.approx(0.04, abs=0.02)
    assert sum(timer.seconds.values()) == pytest.approx(total, abs=0.002)


def test_a_part_that_fails_is_counted_and_left() -> None:
    timer = PartTimer()

    def fail() -> Any:
        with timer.part("outer"), timer.part("inner"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert set(timer.seconds) == {"outer", "inner"}
    assert timer._parts == []


def test_the_fixed_rule_gives_every_instance_the_same_temperature() -> None:
    outputs = InstanceOutputs(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64))
    temperature = FixedTemperature(2.5)(outputs)
    assert temperature.student.tolist() == temperature.teacher.tolist() == [2.5] * 5
    for impossible in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError):
            FixedTemperature(impossible)


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
