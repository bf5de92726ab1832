"""Reads and checks the folder of a run for its report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from agents.learned.loading import PRETRAINED
from agents.recording.history import HISTORY_VERSION, QUANTILES
from experiments.session.detections import DetectionRecord, read_detections
from experiments.session.folder import CONFIG_FILE, CREDIT_FILE, HISTORY_FILE, SUMMARY_FILE, TRACE_FILE, Summary
from experiments.session.population.table import CANDIDATES
from experiments.session.provenance import ACCURACY, metric_of
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import read_json, read_tensors, reading

_HISTORY_NUMBERS = ["epoch", "step", "seconds", "validation_accuracy", "validation_loss", "training_accuracy"]
_HISTORY_NUMBERS += ["temperature_mean", "reward"]
_NUMBERS_END = ("_accuracy", "_epoch", "seconds", "_ms", "steps")  # of names in the summary
_DETAILS = {
    "teacher_test_details": "teacher",
    "student_alone_test_details": "student alone",
    "student_test_details": "student, kept",
    "student_best_test_details": "student, best epoch on validation",
    "student_last_test_details": "student, last epoch",
}
"""The networks that detailed metrics are of, by the key in the summary."""
_TRACE_COLUMNS = ("epoch", "step", "index", "label", "temperature", "teacher_confidence", "student_margin", "reward")


class _Epoch(TypedDict):
    """The numbers of an epoch that reports show; None where one is not known."""

    epoch: int
    step: int
    seconds: float
    validation_accuracy: float | None
    validation_loss: float | None
    training_accuracy: float | None
    temperature_mean: float | None
    temperature_quantiles: list[float | None]
    reward: float | None


class _Epochs(TypedDict):
    """A history of one student."""

    version: int
    epochs: list[_Epoch]


class _Members(TypedDict, total=False):
    """The histories of a population's members."""

    members: dict[str, list[_Epoch]]
    metric: str


class _Quality(TypedDict):
    """What ``rlkd credit`` has measured of a calibrator."""

    pearson: float | None
    spearman: float | None
    cost_ratio: float


History = dict[str, np.ndarray]
"""The columns of a run's history, each ``(epochs,)`` with NaN for unknown values; ``temperature_quantiles`` is
``(epochs, 5)``."""


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's folder; history and trace have no rows if none were recorded.

    ``members`` are the histories of a population by its members' names; a run of one student has none.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None
    history: History
    trace: dict[str, np.ndarray]
    credit: dict[str, dict[str, Any]] | None
    detections: DetectionRecord | None
    members: dict[str, History]
    recorded_metric: str = ACCURACY

    @classmethod
    def read(cls, folder: Path, credit: Path | None = None) -> RunRecord:
        """Read a run's folder, in which everything except the options may be missing."""
        config = _dictionary(folder / CONFIG_FILE)
        summary = _summary(folder / SUMMARY_FILE) if (folder / SUMMARY_FILE).exists() else None
        return cls(
            folder,
            config,
            summary,
            read_history(folder / HISTORY_FILE),
            _read_trace(folder / TRACE_FILE),
            _read_credit(folder, credit),
            read_detections(folder),
            _read_members(folder / HISTORY_FILE),
            _read_metric(folder / HISTORY_FILE),
        )

    def percent(self, name: str) -> float | None:
        """Return an accuracy of the summary in percent, or None if it is unknown."""
        share = self.number(name)
        return None if share is None else 100.0 * share

    def number(self, name: str) -> float | None:
        """Return a number of the summary, or None if it is unknown."""
        value = None if self.summary is None else self.summary.get(name)
        return None if value is None else float(value)

    @property
    def metric(self) -> str:
        """The metric of the run's networks: accuracy, or AP for detectors."""
        return self.recorded_metric if self.summary is None else metric_of(self.summary)

    @property
    def kept(self) -> str:
        """The student that the run has kept, in words."""
        if self.population is not None and self.population["keep"] != "best":
            return CANDIDATES[self.population["keep"]]
        if (self.summary or {}).get("kept", "best") == "last":
            return "last epoch"
        return f"best epoch on validation, {self.number('student_epoch') or 0:.0f}"

    @property
    def details(self) -> dict[str, dict[str, float]]:
        """Detailed test metrics, shares by name, of every network that has any."""
        summary = self.summary or {}
        return {network: summary[key] for key, network in _DETAILS.items() if summary.get(key)}

    @property
    def acting(self) -> dict[str, np.ndarray]:
        """The traced instances with finite values of the updates after the warm-up.

        Their column ``relative`` is T over the median of its own batch, which a schedule along the run does not change.
        """
        rows = self.trace["epoch"] > self.warmup_epochs
        for name in ("temperature", "teacher_confidence", "student_margin"):
            rows &= np.isfinite(self.trace[name])
        found = {name: values[rows] for name, values in self.trace.items()}
        _, batch = np.unique(found["step"], return_inverse=True)
        medians = np.array([np.median(found["temperature"][batch == one]) for one in range(batch.max(initial=-1) + 1)])
        relative = found["temperature"] / medians[batch] if len(batch) else np.empty(0)
        return {**found, "relative": relative}

    @property
    def population(self) -> dict[str, Any] | None:
        """What the summary says of a population; None for a run of one student or one that has not finished."""
        return (self.summary or {}).get("population")

    @property
    def chooser(self) -> str:
        """The rule, ``policy`` or the agent that sets the temperatures, under the name that commands tell."""
        if self.summary is not None and "temperature_from" in self.summary:
            return str(self.summary["temperature_from"])
        return str(self.config.get("rule") or ("policy" if self.config.get("policy") else self.config.get("agent")))

    @property
    def has_teacher(self) -> bool:
        """Whether the student learns from a teacher, so that temperatures count, rather than from labels alone."""
        return self.config.get("method") != "cross_entropy"

    @property
    def has_agent(self) -> bool:
        """Whether an agent learns in the run, rather than a rule or saved policy setting the temperatures."""
        is_frozen = (
            self.config.get("rule") or self.config.get("policy") or self.config.get("agent") in (None, PRETRAINED)
        )
        return not is_frozen

    @property
    def warmup_epochs(self) -> int:
        """The number of epochs at the fixed temperature, which only runs with an agent have."""
        return int(self.config.get("warmup_epochs") or 0) if self.has_agent else 0


def read_history(path: Path) -> History:
    """Read ``history.json``; a missing file has no epochs."""
    if not path.exists():
        return _columns([], path)
    content = read_json(path, _Epochs)
    if content["version"] != HISTORY_VERSION:
        raise UsageError(f"{path} is not a history of version {HISTORY_VERSION}")
    return _columns(content["epochs"], path)


def _read_members(path: Path) -> dict[str, History]:
    """Read the histories of a population's members from ``history.json``."""
    if not path.exists():
        return {}
    members = read_json(path, _Members).get("members", {})
    return {name: _columns(epochs, path) for name, epochs in members.items()}


def _read_metric(path: Path) -> str:
    """Read what the accuracies of a history are; those of older runs do not tell it."""
    return read_json(path, _Members).get("metric", ACCURACY) if path.exists() else ACCURACY


def _columns(epochs: list[dict[str, Any]], path: Path) -> History:
    with reading(path):
        columns = {name: np.array([_number(epoch[name]) for epoch in epochs]) for name in _HISTORY_NUMBERS}
        quantiles = [[_number(value) for value in epoch["temperature_quantiles"]] for epoch in epochs]
        columns["temperature_quantiles"] = np.array(quantiles).reshape(len(epochs), len(QUANTILES))
    return columns


def _read_trace(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {name: np.empty(0) for name in _TRACE_COLUMNS}
    tensors, _ = read_tensors(path)
    lengths = {tuple(tensors[name].shape) for name in _TRACE_COLUMNS if name in tensors}
    if not set(_TRACE_COLUMNS) <= tensors.keys() or len(lengths) != 1 or len(lengths.pop()) != 1:
        raise UsageError(f"{path} is not a trace of a run: it needs equally long columns {', '.join(_TRACE_COLUMNS)}")
    return {name: tensors[name].double().numpy() for name in _TRACE_COLUMNS}


def _read_credit(folder: Path, given: Path | None) -> dict[str, dict[str, Any]] | None:
    path = folder / CREDIT_FILE if given is None else given / CREDIT_FILE if given.is_dir() else given
    if given is None and not path.exists():
        return None
    quality = read_json(path, dict[str, _Quality])
    return {
        name: _numbers({"pearson": row["pearson"], "spearman": row["spearman"], "cost_ratio": row["cost_ratio"]})
        for name, row in quality.items()
    }


def _summary(path: Path) -> dict[str, Any]:
    summary = read_json(path, Summary)
    with reading(path):
        known = {name: value for name, value in summary.items() if value is not None}
        numbers = {name: _number(value) for name, value in known.items() if name.endswith(_NUMBERS_END)}
        details = {key: _numbers(summary[key]) for key in _DETAILS if key in known}
        return summary | numbers | details


def _dictionary(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, dict[str, Any])
    return content


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> float:
    """Return a number as a float, NaN for None."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
