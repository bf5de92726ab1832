"""The history of a run: plain numbers for every epoch."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun

HISTORY_VERSION = 1
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class RunHistory(RunHook):
    """Summarises every epoch: accuracy, temperature, reward and time.

    The epoch's tensors stay on the device until its end, so a step costs no round trip to the host.

    The hook ``selection`` must be called before this one, whose time counts as the part ``logging``.

    Attributes:
        epochs: one dictionary an epoch, in order: ``epoch`` from 1, ``step`` that ended it, ``seconds`` since the run's
            start (a resumed run goes on counting), ``validation_accuracy`` and ``validation_loss`` (None where the
            student's loss is not finite), ``training_accuracy`` of the batches before their updates,
            ``temperature_mean`` and ``temperature_quantiles`` (5, 25, 50, 75 and 95 %) of the student's temperatures,
            and ``reward``, the sum of the batch rewards. What is not finite is None.
    """

    def __init__(self, selection: StudentSelection, timer: PartTimer) -> None:
        self._selection = selection
        self._timer = timer
        self._temperatures: list[Tensor] = []
        self._correct: list[Tensor] = []
        self._rewards: list[Tensor] = []
        self.epochs: list[dict[str, Any]] = []

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        """Remember one update."""
        outputs = result.outputs
        self._rewards.append(result.reward)
        self._temperatures.append(result.temperature.student)
        self._correct.append(outputs.student_log_probabilities.argmax(dim=-1) == outputs.labels)

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Summarise the epoch."""
        with self._timer.part("logging"):
            temperature, correct, reward = (values.cpu().numpy() for values in self._current().values())
            self._temperatures, self._correct, self._rewards = [], [], []
            self.add(run.epoch, run.step_count, temperature, correct, reward)

    def add(self, epoch: int, step: int, temperature: np.ndarray, correct: np.ndarray, reward: np.ndarray) -> None:
        """Add an epoch that a step ended.

        Its values are the temperatures ``(n,)`` of its instances, whether their classes were predicted ``(n,)``, and
        the rewards ``(s,)`` of its steps.
        """
        is_good = self._selection.last_epoch == epoch
        told = {
            "epoch": epoch,
            "step": step,
            "seconds": sum(self._timer.seconds.values()),
            "validation_accuracy": self._selection.last_accuracy if is_good else None,
            "validation_loss": self._selection.last_loss if is_good else None,
            "training_accuracy": float(correct.mean()),
            "temperature_mean": _finite(temperature.mean(dtype=np.float64)),
            "temperature_quantiles": [_finite(value) for value in _quantiles(temperature)],
            "reward": _finite(reward.sum(dtype=np.float64)),
        }
        self.epochs.append(told)

    def _current(self) -> dict[str, Tensor]:
        """Return the values of the current epoch so far, ``(n,)`` each, on the run's device."""
        return {
            "temperature": torch.cat(self._temperatures) if self._temperatures else torch.empty(0),
            "correct": torch.cat(self._correct) if self._correct else torch.empty(0),
            "reward": torch.stack(self._rewards) if self._rewards else torch.empty(0),
        }

    def scalars(self) -> dict[str, float]:
        """Return the last epoch's metrics by TensorBoard tag, without those that are not finite.

        A run is an episode; while it lasts, its return and its length are those so far.
        """
        last = self.epochs[-1]
        figures = {
            "student/training_accuracy": last["training_accuracy"],
            "student/validation_accuracy": last["validation_accuracy"],
            "student/validation_loss": last["validation_loss"],
            "reward/epoch": last["reward"],
            "rollout/ep_rew_mean": _sum(epoch["reward"] for epoch in self.epochs),
            "rollout/ep_len_mean": last["step"],
            "temperature/mean": last["temperature_mean"],
        }
        for share, value in zip(QUANTILES, last["temperature_quantiles"], strict=True):
            figures[f"temperature/quantile_{share:.2f}"] = value
        return {tag: value for tag, value in figures.items() if value is not None}

    def content(self) -> dict[str, Any]:
        """Return the content of ``history.json``."""
        return {"version": HISTORY_VERSION, "epochs": self.epochs}

    def columns(self) -> dict[str, list[Any]]:
        """Return one list for each quantity with one value per epoch; each quantile is a quantity of its own."""
        names = [name for name in self.epochs[0] if name != "temperature_quantiles"] if self.epochs else []
        columns = {name: [epoch[name] for epoch in self.epochs] for name in names}
        for place, share in enumerate(QUANTILES):
            values = [epoch["temperature_quantiles"][place] for epoch in self.epochs]
            columns[f"temperature_quantile_{share:.2f}"] = values
        return columns

    def state_dict(self) -> dict[str, Any]:
        """Return all epochs and the values of the current one, independent of this object from now on."""
        return {"epochs": deepcopy(self.epochs), "current": self._current()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore :meth:`state_dict` for a run on this device."""
        self.epochs = deepcopy(state["epochs"])
        current = {name: values.to(device) for name, values in state["current"].items()}
        self._temperatures = [current["temperature"]] if len(current["temperature"]) else []
        self._correct = [current["correct"]] if len(current["correct"]) else []
        self._rewards = list(current["reward"])


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum, or None if one of the values is not known."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def _finite(value: Any) -> float | None:
    """Return None for a number that JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def _quantiles(values: np.ndarray) -> list[float]:
    """Return what ``np.quantile`` returns; for the few hundred values of a short epoch this is ten times as fast."""
    ordered = np.sort(values)
    places = np.array(QUANTILES) * (len(ordered) - 1)
    return np.interp(places, np.arange(len(ordered)), ordered).tolist()
