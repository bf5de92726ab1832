"""Which student is kept of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from rlkd_env.tasks import Evaluation


class ScriptedRun(SimpleNamespace):
    """A run whose validation figures are written down beforehand."""

    def __init__(self, figures: list[tuple[float, float]]) -> None:
        super().__init__(figures=figures, epoch=0, student=nn.Linear(1, 1), unsound=())
        self.update = SimpleNamespace(has_sound_weights=lambda: torch.tensor(self.epoch not in self.unsound))

    def end_epoch(self, selection: StudentSelection) -> None:
        self.epoch += 1
        with torch.no_grad():
            self.student.weight.fill_(self.epoch)
        selection.on_epoch_end(self)  # type: ignore[arg-type]

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: values.clone() for name, values in self.student.state_dict().items()}

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


def test_a_student_whose_weights_are_not_sound_is_not_kept_whatever_its_loss() -> None:
    selection, run = StudentSelection(PartTimer()), ScriptedRun([(0.5, 1.0), (0.75, 0.5)])
    run.unsound = (2,)
    for _ in range(2):
        run.end_epoch(selection)
    assert (selection.best_epoch, selection.last_epoch) == (1, 1)


def test_a_selection_goes_on_from_its_state() -> None:
    selection, run = StudentSelection(PartTimer()), ScriptedRun([(0.75, 1.0), (0.5, 0.1)])
    run.end_epoch(selection)
    other = StudentSelection(PartTimer())
    other.load_state_dict(selection.state_dict())
    run.end_epoch(other)
    assert (other.best_epoch, selection.best_epoch, other.last_accuracy) == (1, 1, 0.5)
    assert float(other.best_student["weight"]) == 1.0
