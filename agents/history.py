"""What happened in every epoch of a run, as plain numbers that are kept with it."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from agents.callbacks import StudentSelection
from agents.timing import PartTimer
from rlkd_env.run import DistillationRun, RunHook, StepResult

HISTORY_VERSION = 1
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class RunHistory(RunHook):
    """Sums every epoch up: accuracy, temperature, reward and the clock.

    Tensors of the epoch stay on the device until its end; a step costs no round trip to the host.

    Args:
        selection: whose validation figures are noted; must be called before this hook.
        timer: whose seconds are the run's clock; counts the summing up to the part ``logging``.

    Attributes:
        epochs: one dictionary an epoch, in order: ``epoch`` from 1, ``step`` that ended it, ``seconds`` since the run's
            start (a resumed run goes on counting), ``validation_accuracy`` and ``validation_loss`` (None where the
            student's loss is not finite), ``training_accuracy`` of the batches before their updates,
            ``temperature_mean`` and ``temperature_quantiles`` (5, 25, 50, 75 and 95 %) of the student's temperatures,
            and ``reward``, the sum of the batch rewards.
    """

    def __init__(self, selection: StudentSelection, timer: PartTimer) -> None:
        self._selection = selection
        self._timer = timer
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self.epochs: list[dict[str, Any]] = []

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        """Remember one update."""
        outputs = result.outputs
        self._values["reward"].append(result.reward.detach().reshape(1))
        self._values["temperature"].append(result.temperature.student)
        self._values["correct"].append(outputs.student_logits.detach().argmax(dim=-1) == outputs.labels)

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Sum the epoch up."""
        with self._timer.part("logging"):
            training_accuracy, reward, mean, *quantiles = self._epoch_figures(run.device).tolist()
            is_good = self._selection.last_epoch == run.epoch
            self.epochs.append(
                {
                    "epoch": run.epoch,
                    "step": run.step_count,
                    "seconds": sum(self._timer.seconds.values()),
                    "validation_accuracy": self._selection.last_accuracy if is_good else None,
                    "validation_loss": self._selection.last_loss if is_good else None,
                    "training_accuracy": training_accuracy,
                    "temperature_mean": mean,
                    "temperature_quantiles": quantiles,
                    "reward": reward,
                }
            )

    def _epoch_figures(self, device: torch.device) -> Tensor:
        """Return training accuracy, sum of rewards, mean and quantiles of the temperatures, and forget the values."""
        values = {name: torch.cat([piece.to(device) for piece in pieces]) for name, pieces in self._values.items()}
        self._values.clear()
        temperature = values["temperature"].float()
        quantiles = temperature.quantile(torch.tensor(QUANTILES, device=device))
        figures = [values["correct"].float().mean(), values["reward"].float().sum(), temperature.mean(), *quantiles]
        return torch.stack(figures)

    def scalars(self) -> dict[str, float]:
        """Return the last epoch's figures by their TensorBoard tags; what is not known is left out."""
        last = self.epochs[-1]
        figures = {
            "student/training_accuracy": last["training_accuracy"],
            "student/validation_accuracy": last["validation_accuracy"],
            "student/validation_loss": last["validation_loss"],
            "reward/epoch": last["reward"],
            "reward/since_start": sum(epoch["reward"] for epoch in self.epochs),
            "temperature/mean": last["temperature_mean"],
        }
        for share, value in zip(QUANTILES, last["temperature_quantiles"], strict=True):
            figures[f"temperature/quantile_{share:.2f}"] = value
        return {tag: value for tag, value in figures.items() if value is not None}

    def content(self) -> dict[str, Any]:
        """Return what ``history.json`` holds."""
        return {"version": HISTORY_VERSION, "epochs": self.epochs}

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs and what is known of the current one, independent of this object from now on."""
        values = {name: torch.cat(pieces) for name, pieces in self._values.items()}
        return {"epochs": deepcopy(self.epochs), "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.epochs = deepcopy(state["epochs"])
        self._values = defaultdict(list, {name: [value] for name, value in state["values"].items()})
