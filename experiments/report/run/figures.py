"""The figures of a single run: accuracies, temperatures, time, and the quality of credit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.formatting import capitalized, number, percent
from experiments.report.run.loading import RunRecord
from experiments.report.style import COLOURS, Drawing, add_legend, figure_of, new_axes
from experiments.session.provenance import ACCURACY

PARTS = ("environment", "agent", "evaluation", "logging", "checkpoint")


def draw_accuracy_over_epochs(run: RunRecord) -> Drawing | None:
    """Draw validation and training accuracy, or validation AP, over the epochs, with test results as marks."""
    history = run.history
    if not len(history["epoch"]):
        return None
    axes = new_axes("epoch", f"{run.metric}, %", height=3.6)
    validation = 100 * history["validation_accuracy"]
    if run.metric == ACCURACY:  # for detectors the AP on the training images is not known
        training = 100 * history["training_accuracy"]
        axes.plot(history["epoch"], training, color=COLOURS["muted"], linewidth=1.2, linestyle=":", label="training")
    axes.plot(history["epoch"], validation, color=COLOURS["blue"], label="validation")
    marks = _mark_tests(axes, run, float(history["epoch"][-1]))
    style.set_count_scale(axes)
    add_legend(axes)
    caption = _validation_in_words(run)
    if marks:
        caption += f" Marks show the {run.metric} on the test images, measured once after the end."
    if (run.summary or {}).get("exploration") and run.metric == ACCURACY:
        caption += " Training accuracy falls in exploring epochs, whose images are mixed."
    title = f"{capitalized(run.metric)} over epochs"
    return Drawing("accuracy_over_epochs", title, caption, figure_of(axes))


def draw_accuracy_over_time(run: RunRecord) -> Drawing | None:
    """Draw validation accuracy against wall-clock time."""
    history = run.history
    if not len(history["epoch"]):
        return None
    seconds, unit = _readable(history["seconds"])
    validation = 100 * history["validation_accuracy"]
    axes = new_axes(f"wall-clock time since the start, {unit}", f"{run.metric}, %", height=3.6)
    axes.plot(seconds, validation, color=COLOURS["blue"], label="validation")
    _mark_tests(axes, run, float(seconds[-1]))
    add_legend(axes)
    caption = f"{len(seconds)} epochs took {seconds[-1]:.3g} {unit}."
    if np.isfinite(validation).any():
        best = float(np.nanmax(validation))
        near = int(np.flatnonzero(validation >= best - 1.0)[0])
        caption += (
            f" After {seconds[near]:.3g} {unit} the validation {run.metric} was within one point of its best, "
            f"{best:.1f} %."
        )
    title = f"{capitalized(run.metric)} against wall-clock"
    return Drawing("accuracy_over_time", title, caption, figure_of(axes))


def draw_temperature_over_epochs(run: RunRecord) -> Drawing | None:
    """Draw the median and spread of the temperatures in every epoch."""
    history = run.history
    if not len(history["epoch"]):
        return None
    axes = new_axes("epoch", "temperature")
    draw_temperature_bands(axes, history["epoch"], history["temperature_quantiles"])
    style.set_temperature_scale(axes, history["temperature_quantiles"])
    if 0 < run.warmup_epochs < history["epoch"][-1]:
        axes.axvline(
            run.warmup_epochs + 0.5, color=COLOURS["muted"], linewidth=1.2, linestyle=":", label="agent begins"
        )
    style.set_count_scale(axes)
    add_legend(axes)
    low, _, median, _, high = history["temperature_quantiles"][-1]
    caption = (
        f"In the last epoch the median temperature is {median:.3g}; 90 % of the instances lie between {low:.3g} and "
        f"{high:.3g}."
    )
    if run.warmup_epochs:
        rule = run.config.get("around")
        whose = f"those of {rule}, which the agent acts around" if rule else "the fixed one"
        caption += f" Up to epoch {run.warmup_epochs} the temperatures are {whose}."
    return Drawing("temperature_over_epochs", "Temperature over training", caption, figure_of(axes))


def draw_temperature_bands(axes: Axes, epochs: np.ndarray, quantiles: np.ndarray) -> None:
    """Draw the median, quartiles and middle 90 % of temperatures from quantiles ``(epochs, 5)``."""
    low, lower, median, upper, high = quantiles.T
    axes.fill_between(epochs, low, high, color=COLOURS["blue"], alpha=0.18, linewidth=0, label="5 to 95 %")
    axes.fill_between(epochs, lower, upper, color=COLOURS["blue"], alpha=0.35, linewidth=0, label="25 to 75 %")
    axes.plot(epochs, median, color=COLOURS["blue"], label="median")


def draw_time(run: RunRecord) -> Drawing | None:
    """Draw the time that each part of the run took."""
    seconds = {part: run.number(f"{part}_seconds") or 0.0 for part in PARTS}
    total = sum(seconds.values())
    if total <= 0.0:
        return None
    values, unit = _readable(np.array(list(seconds.values())))
    axes = new_axes(f"wall-clock time, {unit}", "", height=2.6)
    axes.barh(list(seconds), values, color=COLOURS["blue"], height=0.62)
    for position, (value, share) in enumerate(zip(values, seconds.values(), strict=True)):
        axes.annotate(
            f"{value:.3g} {unit}, {percent(share / total)}",
            (value, position),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS["ink"],
        )
    axes.set_xlim(0, 1.38 * values.max())
    axes.invert_yaxis()
    style.hide_row_ticks(axes)
    longest = max(seconds, key=lambda part: seconds[part])
    caption = (
        f"The largest part is the {longest}, {percent(seconds[longest] / total)}. Environment: forwards, backwards and "
        "updates of the networks, and rewards; agent: choosing temperatures and learning; evaluation: on the "
        "validation images; logging: metrics and records; checkpoint: saving."
    )
    return Drawing("time", "Where the time went", caption, figure_of(axes))


def draw_credit(run: RunRecord) -> Drawing | None:
    """Draw how well each calibrator's credits agree with the true effects."""
    return None if run.credit is None else draw_credit_quality(run.credit, run.config.get("calibrator"))


def draw_credit_quality(credit: Mapping[str, Mapping[str, Any]], own: str | None) -> Drawing | None:
    """Draw the quality of credit by calibrator, of which the run's ``own`` is marked; None if it is known of none."""
    known = {
        name: row
        for name, row in credit.items()
        if name != "counterfactual" and row["pearson"] is not None and np.isfinite(row["pearson"])
    }
    if not known:
        return None
    names = [f"{name}\n(this run)" if name == own else name for name in known]
    axes = new_axes("correlation with the true effect", "", height=1.2 + 0.55 * len(known))
    places = np.arange(len(known))
    for offset, kind, colour in ((-0.19, "pearson", "blue"), (0.19, "spearman", "orange")):
        values = [row[kind] for row in known.values()]
        axes.barh(places + offset, values, height=0.34, color=COLOURS[colour], label=kind.capitalize())
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, *(row[kind] for row in known.values() for kind in ("pearson", "spearman"))), 1.0)
    style.hide_row_ticks(axes)
    add_legend(axes)
    words = [f"{name} {number(row['pearson'])} (a step costs {row['cost_ratio']:.2f} ×)" for name, row in known.items()]
    caption = (
        "Correlation, within batches, of an instance's credit with the true effect of its temperature; 1 is perfect, "
        f"0 is noise. Pearson: {', '.join(words)}. Measured by rlkd credit."
    )
    if "uniform" in credit and "uniform" not in known:
        caption += " The batch reward (uniform) is the same for all instances and has no correlation."
    return Drawing("credit", "Credit quality", caption, figure_of(axes))


def _mark_tests(axes: Axes, run: RunRecord, end: float) -> list[float]:
    """Mark the test results and return those that are known, in percent; they stand at the run's end."""
    marks = [
        ("student_test_accuracy", "D", "vermilion", "test, student"),
        ("student_alone_test_accuracy", "s", "muted", "test, student alone"),
    ]
    values = []
    for name, marker, colour, label in marks:
        if (value := run.percent(name)) is not None:
            values.append(value)
            told = f"{label} {value:.2f}"
            axes.plot([end], [value], marker, color=COLOURS[colour], markersize=8, label=told, zorder=5)
    if (teacher := run.percent("teacher_test_accuracy")) is not None:
        values.append(teacher)
        told = f"test, teacher {teacher:.2f}"
        axes.axhline(teacher, color=COLOURS["purple"], linestyle="--", linewidth=1.4, label=told)
    return values


def _validation_in_words(run: RunRecord) -> str:
    validation, epochs = 100 * run.history["validation_accuracy"], run.history["epoch"]
    if not np.isfinite(validation).any():
        return "No epoch ended with a student whose loss is finite."
    loss = np.nan_to_num(run.history["validation_loss"], nan=np.inf)
    best = np.lexsort((loss, -np.nan_to_num(validation, nan=-1.0)))[0]  # the loss decides among equals
    return (
        f"Validation {run.metric} goes from {validation[0]:.1f} % after the first epoch to {validation[-1]:.1f} % "
        f"after epoch {epochs[-1]:.0f}; its best is {validation[best]:.1f} % after epoch {epochs[best]:.0f}."
    )


def _readable(seconds: np.ndarray) -> tuple[np.ndarray, str]:
    """Convert times to a unit that suits the longest."""
    longest = float(np.nanmax(seconds))
    for least, unit in ((7200.0, "h"), (180.0, "min")):
        if longest >= least:
            return seconds / {"h": 3600.0, "min": 60.0}[unit], unit
    return seconds, "s"
