"""The figures of a run's instances: their temperatures and rewards."""

from __future__ import annotations

import numpy as np
from scipy import stats

from experiments.compare.statistics import student_interval
from experiments.report import style
from experiments.report.formatting import number
from experiments.report.run.loading import RunRecord
from experiments.report.style import COLOURS, Drawing, add_legend, figure_of, new_axes
from experiments.session.provenance import ACCURACY

_POINTS = 600
_BINS = 8
_FEW_CLASSES = 20
_LEAST = 40  # instances that are drawn; bins of a handful would show noise
_REWARD_UNITS = {
    "probe_turns": "fall of the probe loss, nats",
    "probe_loss": "fall of the probe loss, nats",
    "probe_accuracy": "gain of probe accuracy",
}


def draw_temperature_against_confidence(run: RunRecord) -> Drawing | None:
    """Draw temperatures against the teacher's probability of the true class."""
    ends = ("the teacher is less sure of", "it is surest of")
    title = "Temperature against teacher confidence"
    return _draw_against(run, "teacher_confidence", "teacher's probability of the true class", title, ends)


def draw_temperature_against_margin(run: RunRecord) -> Drawing | None:
    """Draw temperatures against the student's margin."""
    ends = ("the student is least decided on", "it is most decided on")
    title = "Temperature against student margin"
    return _draw_against(run, "student_margin", "student's margin (top-1 minus top-2 probability)", title, ends)


def draw_temperature_by_class(run: RunRecord) -> Drawing | None:
    """Draw the median and quartiles of the temperatures of every class."""
    sample = _second_half(run)
    classes = np.unique(sample["label"])
    if len(sample["label"]) < _LEAST or len(classes) < 2:
        return None
    temperature = sample["temperature"]
    quartiles = np.array([np.quantile(temperature[sample["label"] == one], (0.25, 0.5, 0.75)) for one in classes])
    is_few = len(classes) <= _FEW_CLASSES
    order = np.arange(len(classes)) if is_few else np.argsort(quartiles[:, 1], kind="stable")
    lower, median, upper = quartiles[order].T
    background = "" if run.metric == ACCURACY else " (0: background)"
    axes = new_axes(f"class{background}" if is_few else "classes, from the lowest to the highest median", "temperature")
    places = np.arange(len(classes))
    if is_few:
        errors = np.abs([median - lower, upper - median])
        axes.errorbar(places, median, errors, fmt="o", color=COLOURS["blue"], elinewidth=4, markersize=8, alpha=0.9)
        axes.set_xticks(places, [f"{one:.0f}" for one in classes])
        axes.grid(visible=False, axis="x")
    else:
        axes.fill_between(places, lower, upper, color=COLOURS["blue"], alpha=0.3, linewidth=0, label="quartiles")
        axes.plot(places, median, color=COLOURS["blue"], label="median")
        add_legend(axes)
    style.set_temperature_scale(axes, quartiles)
    coldest, hottest = int(np.argmin(quartiles[:, 1])), int(np.argmax(quartiles[:, 1]))
    caption = (
        f"Medians and quartiles. They go from {quartiles[coldest, 1]:.3g} (class {classes[coldest]:.0f}) to "
        f"{quartiles[hottest, 1]:.3g} (class {classes[hottest]:.0f}). {_sample_in_words(run)}"
    )
    return Drawing("temperature_by_class", "Temperature by class", caption, figure_of(axes))


def draw_reward_against_temperature(run: RunRecord) -> Drawing | None:
    """Draw the mean reward of instances by temperature."""
    has_reward = np.isfinite(run.trace["reward"]) & np.isfinite(run.trace["temperature"])
    temperature, reward = run.trace["temperature"][has_reward], run.trace["reward"][has_reward]
    if len(reward) < _LEAST or np.ptp(temperature) == 0.0:
        return None
    bins = _equal_bins(temperature)
    middle = np.array([np.median(temperature[rows]) for rows in bins])
    mean = np.array([reward[rows].mean() for rows in bins])
    low, high = np.array([student_interval(reward[rows]) for rows in bins]).T
    name = str(run.config.get("reward"))
    axes = new_axes("temperature", f"instance's reward\n({_REWARD_UNITS.get(name, name)})")
    axes.axhline(0.0, color=COLOURS["muted"], linewidth=1.0)
    axes.errorbar(middle, mean, [mean - low, high - mean], fmt="o-", color=COLOURS["blue"], capsize=3)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
    correlation = stats.spearmanr(temperature, reward).statistic if np.ptp(reward) else 0.0
    caption = (
        f"Means of {len(bins)} groups of equal size with 95 % intervals (Student's t), {len(reward):,} instances, "
        f"rewards by the calibrator {run.config.get('calibrator')}. Spearman's rank correlation of temperature and "
        f"reward is {number(correlation)}."
    )
    if low.max() <= high.min():
        caption += " All intervals overlap: no temperature earned clearly more than another."
    return Drawing("reward_against_temperature", "Instance reward against temperature", caption, figure_of(axes))


def _second_half(run: RunRecord) -> dict[str, np.ndarray]:
    """Return the finite rows of the second half of the trace, which show the temperatures that were arrived at."""
    step = run.trace["step"]
    rows = step > step.max(initial=0) / 2
    for name in ("temperature", "teacher_confidence", "student_margin"):
        rows &= np.isfinite(run.trace[name])
    return {name: values[rows] for name, values in run.trace.items()}


def _sample_in_words(run: RunRecord) -> str:
    count = len(_second_half(run)["step"])
    noise = ", with the exploration noise of a learning agent" if run.has_agent else ""
    return f"A sample of {count:,} instances from the second half of the updates{noise}."


def _draw_against(run: RunRecord, column: str, label: str, title: str, ends: tuple[str, str]) -> Drawing | None:
    """Scatter some instances, and draw the median and quartiles of groups of equal size.

    The horizontal axis shows a column of the trace that is a probability; ``ends`` describes the instances at its lower
    and upper end. Returns None if there are too few instances.
    """
    sample = _second_half(run)
    places, temperature = np.clip(sample[column], style.NEAREST_TO_0, 1.0 - style.NEAREST_TO_1), sample["temperature"]
    if len(temperature) < _LEAST:
        return None
    axes = new_axes(label, "temperature")
    shown = np.linspace(0, len(temperature) - 1, min(_POINTS, len(temperature))).astype(int)
    (points,) = axes.plot(places[shown], temperature[shown], "o", color=COLOURS["muted"], label="instances")
    points.set(markersize=2.5, alpha=0.35, markeredgewidth=0)
    bins = _equal_bins(places)
    middle = [np.median(places[rows]) for rows in bins]
    lower, median, upper = np.array([np.quantile(temperature[rows], (0.25, 0.5, 0.75)) for rows in bins]).T
    axes.fill_between(middle, lower, upper, color=COLOURS["blue"], alpha=0.3, linewidth=0, label="25 to 75 %")
    axes.plot(middle, median, "o-", color=COLOURS["blue"], markersize=5, label="median")
    style.set_temperature_scale(axes, temperature)
    add_legend(axes, columns=3)
    style.set_probability_scale(axes, places)
    low, high = ends
    if np.ptp(temperature) < 1e-6:
        words = f"All instances have the temperature {temperature[0]:.3g}, those {low} and those {high}."
    else:
        words = f"The median is {median[0]:.3g} for the instances {low} and {median[-1]:.3g} for those {high}."
    return Drawing(
        f"temperature_against_{column.partition('_')[2]}", title, f"{words} {_sample_in_words(run)}", figure_of(axes)
    )


def _equal_bins(values: np.ndarray) -> list[np.ndarray]:
    """Return the rows of groups of about equal size, sorted by value; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _BINS + 1)))
    group = np.searchsorted(edges[1:-1], values, side="right")
    return [np.flatnonzero(group == one) for one in np.unique(group)]
