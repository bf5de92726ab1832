"""The students of a run that are kept: the last one, and the best one on the validation images."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.recording.timing import PartTimer
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import KeptEpoch


class EpochStudent(NamedTuple):
    """A student's state dict, its accuracy on the validation images, and its epoch, from 1."""

    weights: dict[str, Tensor]
    accuracy: float
    epoch: int


class StudentSelection(RunHook):
    """Holds two students: that of the last epoch, and that of the best epoch on the validation images.

    The best epoch is the one with the highest accuracy and, among equals, the lowest loss. A student whose validation
    loss is not finite, or whose weights are not sound, is never kept, so after a divergence both are good ones.

    Their attributes are a state dict (None before the first epoch's end), the epoch from 1, and accuracy and loss (in
    nats) on the validation images. The time of the evaluations counts as the part ``evaluation``.
    """

    def __init__(self, timer: PartTimer) -> None:
        self._timer = timer
        self.best_student: dict[str, Tensor] | None = None
        self.last_student: dict[str, Tensor] | None = None
        self.best_epoch = self.last_epoch = 0
        self.best_accuracy = self.last_accuracy = 0.0
        self.best_loss = self.last_loss = float("inf")

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Evaluate the student and keep it if it is the best so far."""
        with self._timer.part("evaluation"):
            evaluation = run.evaluate_validation()
            accuracy, loss = torch.stack([evaluation.accuracy, evaluation.loss]).tolist()
            if math.isfinite(loss) and bool(run.update.has_sound_weights()):
                self.add(run.epoch, accuracy, loss, run.weights())

    def add(self, epoch: int, accuracy: float, loss: float, student: dict[str, Tensor]) -> None:
        """Add the student of an epoch, whose loss is finite and whose weights nobody changes from now on."""
        self.last_accuracy, self.last_loss, self.last_epoch, self.last_student = accuracy, loss, epoch, student
        if self.rank < (accuracy, -loss):
            self.best_accuracy, self.best_loss, self.best_epoch, self.best_student = accuracy, loss, epoch, student

    def of(self, epoch: KeptEpoch) -> EpochStudent | None:
        """Return the student of the last or of the best epoch; None if there is no good one."""
        is_last = epoch == "last"
        weights = self.last_student if is_last else self.best_student
        if weights is None:
            return None
        accuracy, number = (self.last_accuracy, self.last_epoch) if is_last else (self.best_accuracy, self.best_epoch)
        return EpochStudent(weights, accuracy, number)

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy and negated loss of the best student; of two students the one that ranks higher is the better."""
        return self.best_accuracy, -self.best_loss

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes, independent of this object from now on."""
        return deepcopy({name: value for name, value in vars(self).items() if not name.startswith("_")})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        vars(self).update(deepcopy(state))
