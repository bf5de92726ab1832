"""Experiment trackers: a run's settings, the figures of every epoch, and those at its end, where they are collected.

Both are used through their own interfaces alone. Where they keep what they get is theirs to say: ``WANDB_MODE=offline``
and ``MLFLOW_TRACKING_URI`` keep it on this machine.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agents.recording.history import RunHistory
from rlkd_env.errors import missing_package
from rlkd_env.runs.hooks import RunHook
from rlkd_env.utils.choices import TrackerName

_PROJECT = "rlkd"
_LONGEST = 500  # characters of a parameter in MLflow


class Tracker(ABC):
    """Collects the figures of one run."""

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take figures by name, after so many updates."""

    @abstractmethod
    def finish(self, figures: Mapping[str, Any]) -> None:
        """Take the figures at the end."""


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        wandb: Any = importlib.import_module(TRACKERS["wandb"][1])
        self._run = wandb.init(project=_PROJECT, name=name, config=dict(settings), dir=folder)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take figures by name, after so many updates."""
        self._run.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, Any]) -> None:
        """Take the figures at the end."""
        self._run.summary.update(dict(figures))
        self._run.finish()


class MLflow(Tracker):
    """A run of MLflow."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:  # noqa: ARG002
        mlflow: Any = importlib.import_module(TRACKERS["mlflow"][1])
        self._mlflow = mlflow
        mlflow.set_experiment(_PROJECT)
        mlflow.start_run(run_name=name)
        mlflow.log_params({option: str(value)[:_LONGEST] for option, value in settings.items()})

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take figures by name, after so many updates."""
        self._mlflow.log_metrics(dict(figures), step=step)

    def finish(self, figures: Mapping[str, Any]) -> None:
        """Take the figures at the end."""
        self._mlflow.log_metrics({name: float(value) for name, value in figures.items()})
        self._mlflow.end_run()


TRACKERS: dict[TrackerName, tuple[type[Any], str, str]] = {
    "wandb": (WeightsAndBiases, "wandb", "wandb"),
    "mlflow": (MLflow, "mlflow", "mlflow-skinny"),
}
"""The class, the module and the package of every tracker."""


def check_tracker(name: TrackerName) -> None:
    """Check that a tracker's package is installed.

    Raises:
        UsageError: if it is not.
    """
    _, module, package = TRACKERS[name]
    if find_spec(module) is None:
        raise missing_package(f"--track {name}", package)


class TrackedFigures(RunHook[Any]):
    """Gives a tracker the figures of every epoch, and those of the summary."""

    def __init__(self, tracker: Tracker, history: Callable[[], RunHistory]) -> None:
        self._tracker, self._history = tracker, history

    def on_epoch_end(self, run: Any) -> None:
        """Give the figures of the epoch, which the history has by now."""
        self._tracker.log(self._history().scalars(), run.step_count)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Give the accuracies and the time at the end."""
        names = [name for name in summary if name.endswith(("_accuracy", "seconds")) or name == "mean_temperature"]
        self._tracker.finish({name: summary[name] for name in names if summary[name] is not None})
