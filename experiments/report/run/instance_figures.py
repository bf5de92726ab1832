"""The figures of a run's instances: their temperatures and rewards."""

from __future__ import annotations

import numpy as np
from scipy import stats

from experiments.compare.statistics import student_interval
from experiments.report import style
from experiments.report.formatting import number
from experiments.report.run.loading import RunRecord
from experiments.report.style import COLOURS, HUES, Drawing, add_legend, figure_of, new_axes
from experiments.session.provenance import ACCURACY

_POINTS = 600
_BINS = 8
_FEW_CLASSES = 20
_EPOCHS = 4  # single epochs that are shown
_RELATIVE = "temperature over\nthe batch's median"
_LEAST = 40  # instances that are drawn; bins of a handful would show noise
_REWARD_UNITS = {
    "probe_turns": "fall of the probe loss, nats",
    "probe_loss": "fall of the probe loss, nats",
    "probe_accuracy": "gain of probe accuracy",
}


SAME = 1.005
"""Below this ratio temperatures of a batch count as one."""


def differs_in_batches(run: RunRecord) -> bool:
    """Return whether the instances of a batch have different temperatures after the warm-up."""
    relative = run.acting["relative"]
    return len(relative) >= _LEAST and float(np.quantile(relative, 0.95) / np.quantile(relative, 0.05)) > SAME


def describe_temperatures(run: RunRecord) -> str:
    """Say what temperatures easy and hard images got, and how they changed along the run."""
    quantiles = run.history["temperature_quantiles"]
    if not len(quantiles) or not np.isfinite(quantiles).all():
        return ""
    first, last = quantiles[0][2], quantiles[-1][2]
    words = f"The median temperature goes from {first:.3g} in the first epoch to {last:.3g} in the last one"
    if max(first, last) < SAME * min(first, last):
        words = f"The median temperature is {last:.3g} from the first epoch to the last one"
    if not len(run.acting["relative"]):
        return f"{words}."
    if not differs_in_batches(run):
        return f"{words}; all {_instances(run)} of a batch get the same one."
    easy, hard = (np.median(group) for group in _by_difficulty(run))
    whose = "the teacher is surest of", "it is least sure of"
    return (
        f"{words}. Within a batch, the quarter of the {_instances(run)} that {whose[0]} got {easy:.2f} times the "
        f"batch's median temperature, the quarter that {whose[1]} {hard:.2f} times."
    )


def _by_difficulty(run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative temperatures of the easiest and of the hardest quarter, by the teacher's confidence."""
    acting = run.acting
    low, high = np.quantile(acting["teacher_confidence"], (0.25, 0.75))
    relative, confidence = acting["relative"], acting["teacher_confidence"]
    return relative[confidence >= high], relative[confidence <= low]


def _instances(run: RunRecord) -> str:
    return "images" if run.metric == ACCURACY else "regions"


def draw_temperature_against_confidence(run: RunRecord) -> Drawing | None:
    """Draw temperatures, over their batch's median, against the teacher's probability of the true class."""
    ends = ("the teacher is least sure of", "it is surest of")
    title = "Against the teacher's confidence"
    return _draw_against(run, "teacher_confidence", "teacher's probability of the true class", title, ends)


def draw_temperature_against_margin(run: RunRecord) -> Drawing | None:
    """Draw temperatures, over their batch's median, against the student's margin."""
    ends = ("the student is least decided on", "it is most decided on")
    title = "Against the student's margin"
    return _draw_against(run, "student_margin", "student's margin (top-1 minus top-2 probability)", title, ends)


def draw_temperature_by_class(run: RunRecord) -> Drawing | None:
    """Draw the median and quartiles of every class's temperatures over their batch's median."""
    sample = run.acting
    classes = np.unique(sample["label"])
    if not differs_in_batches(run) or len(classes) < 2:
        return None
    relative = sample["relative"]
    quartiles = np.array([np.quantile(relative[sample["label"] == one], (0.25, 0.5, 0.75)) for one in classes])
    is_few = len(classes) <= _FEW_CLASSES
    order = np.arange(len(classes)) if is_few else np.argsort(quartiles[:, 1], kind="stable")
    lower, median, upper = quartiles[order].T
    background = "" if run.metric == ACCURACY else " (0: background)"
    axes = new_axes(f"class{background}" if is_few else "classes, from the lowest to the highest median", _RELATIVE)
    places = np.arange(len(classes))
    axes.axhline(1.0, color=COLOURS["muted"], linewidth=1.0)
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
    low, high = quartiles[coldest, 1], quartiles[hottest, 1]
    words = (
        "No class has another median than the others."
        if high < SAME * low
        else f"Medians go from {low:.3g} (class {classes[coldest]:.0f}) to {high:.3g} (class {classes[hottest]:.0f})."
    )
    caption = f"Medians and quartiles. {words} {_sample_in_words(run)}"
    return Drawing("temperature_by_class", "By class", caption, figure_of(axes))


def draw_single_epochs(run: RunRecord) -> Drawing | None:
    """Draw the temperatures of a few single epochs by the teacher's confidence, one curve an epoch."""
    acting = run.acting
    if not differs_in_batches(run):
        return None
    epochs = np.unique(acting["epoch"])
    chosen = np.unique(epochs[np.linspace(0, len(epochs) - 1, min(_EPOCHS, len(epochs))).round().astype(int)])
    axes = new_axes("teacher's probability of the true class", "temperature")
    ranges, drawn = [], []
    for place, epoch in enumerate(chosen):
        rows = acting["epoch"] == epoch
        places = np.clip(acting["teacher_confidence"][rows], style.NEAREST_TO_0, 1.0 - style.NEAREST_TO_1)
        temperature = acting["temperature"][rows]
        bins = _equal_bins(places, count=4)
        middle = [np.median(places[one]) for one in bins]
        lower, median, upper = np.array([np.quantile(temperature[one], (0.25, 0.5, 0.75)) for one in bins]).T
        colour = COLOURS[HUES[place]]
        axes.fill_between(middle, lower, upper, color=colour, alpha=0.18, linewidth=0)
        axes.plot(middle, median, style.MARKERS[place] + "-", color=colour, markersize=5, label=f"epoch {epoch:.0f}")
        ranges.append(f"{np.quantile(temperature, 0.05):.3g} to {np.quantile(temperature, 0.95):.3g}")
        drawn.append(temperature)
    style.set_temperature_scale(axes, np.concatenate(drawn))
    style.set_probability_scale(axes, np.clip(acting["teacher_confidence"], style.NEAREST_TO_0, 1 - style.NEAREST_TO_1))
    add_legend(axes)
    told = ", ".join(f"epoch {epoch:.0f}: {ends}" for epoch, ends in zip(chosen, ranges, strict=True))
    caption = (
        "Medians and quartiles of four groups of equal size in single epochs. "
        f"90 % of the {_instances(run)} had, in {told}."
    )
    return Drawing("temperature_in_single_epochs", "In single epochs", caption, figure_of(axes))


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


def _sample_in_words(run: RunRecord) -> str:
    noise = ", with the exploration noise of a learning agent" if run.has_agent else ""
    after = " after the warm-up" if run.warmup_epochs else ""
    return f"A sample of {len(run.acting['step']):,} {_instances(run)} of all updates{after}{noise}."


def _draw_against(run: RunRecord, column: str, label: str, title: str, ends: tuple[str, str]) -> Drawing | None:
    """Scatter some instances, and draw the median and quartiles of groups of equal size.

    The horizontal axis shows a column of the trace that is a probability; ``ends`` describes the instances at its lower
    and upper end. Returns None if there are too few instances, or those of a batch have one temperature.
    """
    if not differs_in_batches(run):
        return None
    sample = run.acting
    places, temperature = np.clip(sample[column], style.NEAREST_TO_0, 1.0 - style.NEAREST_TO_1), sample["relative"]
    axes = new_axes(label, _RELATIVE)
    axes.axhline(1.0, color=COLOURS["muted"], linewidth=1.0)
    shown = np.linspace(0, len(temperature) - 1, min(_POINTS, len(temperature))).astype(int)
    (points,) = axes.plot(places[shown], temperature[shown], "o", color=COLOURS["muted"], label="instances")
    points.set(markersize=2.5, alpha=0.35, markeredgewidth=0)
    bins = _equal_bins(places)
    middle = [np.median(places[rows]) for rows in bins]
    lower, median, upper = np.array([np.quantile(temperature[rows], (0.25, 0.5, 0.75)) for rows in bins]).T
    axes.fill_between(middle, lower, upper, color=COLOURS["blue"], alpha=0.3, linewidth=0, label="25 to 75 %")
    axes.plot(middle, median, "o-", color=COLOURS["blue"], markersize=5, label="median")
    style.set_temperature_scale(axes, np.quantile(temperature, (0.005, 0.995)))
    add_legend(axes, columns=3)
    style.set_probability_scale(axes, places)
    low, high = ends
    words = f"The median is {median[0]:.3g} for the {_instances(run)} {low} and {median[-1]:.3g} for those {high}."
    return Drawing(
        f"temperature_against_{column.partition('_')[2]}", title, f"{words} {_sample_in_words(run)}", figure_of(axes)
    )


def _equal_bins(values: np.ndarray, count: int = _BINS) -> list[np.ndarray]:
    """Return the rows of groups of about equal size, sorted by value; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, count + 1)))
    group = np.searchsorted(edges[1:-1], values, side="right")
    return [np.flatnonzero(group == one) for one in np.unique(group)]
