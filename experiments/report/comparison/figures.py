"""The figures of a comparison: each arm against the baseline, its cost, and its curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from experiments.report import style
from experiments.report.comparison.loading import ArmRecord, Interval, TaskRecord
from experiments.report.formatting import capitalized
from experiments.report.style import COLOURS, HUES, Drawing, add_legend, figure_of, file_name, new_axes

_HIGHLIGHTED = 5  # arms with a colour besides the baseline; the others are grey, as many colours look alike
_MARKERS = "os^DvP"  # of the highlighted arms and the baseline
_FAR_OFF = 2.0  # a difference beyond so many times the 0.75 quantile of all is left outside of an axis
_BANDS = 3  # arms, with the baseline, whose curves have interval bands; more would hide each other


def draw_differences(task: TaskRecord, of_all: bool = False) -> Drawing | None:
    """Draw the leading arms' paired differences to the baseline with their intervals, or those of all arms.

    Returns None if there are none, or not more than the leading ones.
    """
    arms = task.compared if of_all else task.leading
    if not arms or (of_all and len(arms) == len(task.leading)):
        return None
    axes = new_axes(f"test {task.metric} over {task.baseline}, points", "", height=1.5 + 0.36 * len(arms))
    outside = _cut_off(arms, axes.set_xlim)
    for place, arm in enumerate(arms):
        if arm in outside:
            _point_outside(axes, place, arm)
            continue
        _draw_interval(axes, place - 0.13, arm.students["last"].difference, width=2.4, face="full")
        _draw_interval(axes, place + 0.17, arm.students["chosen"].difference, width=1.2, face="none")
    axes.axvline(0.0, color=COLOURS["ink"], linewidth=1.2)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    style.hide_row_ticks(axes)
    rest = len(task.compared) - len(arms)
    caption = (
        f"Paired differences to {task.baseline} with 95 % intervals; filled: last epoch, open: best epoch on "
        "validation. Blue intervals are clear of zero, grey ones are not; an arm without one has too few seeds for it."
        + (f" Not shown, as they are further down: {rest}." if rest else "")
        + _outside_in_words(outside)
    )
    name, title = f"differences_{task.name}", f"Difference to {task.baseline}"
    if of_all:
        name, title = f"differences_of_all_{task.name}", f"{title}, all {len(arms)} arms"
    return Drawing(file_name(name), title, caption, figure_of(axes))


def _draw_interval(axes: Axes, place: float, difference: Interval | None, width: float, face: str) -> None:
    """Draw a difference as a point with its interval as a horizontal bar of a width in points."""
    if difference is None:
        return
    colour = COLOURS["blue" if difference.is_clear_of_zero else "muted"]
    if difference.is_known:
        axes.plot([difference.low, difference.high], [place] * 2, color=colour, linewidth=width)
    axes.plot([difference.mean], [place], "o", color=colour, fillstyle=face, markersize=6)


def _point_outside(axes: Axes, place: float, arm: ArmRecord) -> None:
    """Write the difference of an arm that lies outside of the axis at the edge nearest to it."""
    found = arm.students["last"].difference
    assert found is not None
    edge, align = (0.02, "left") if found.mean < 0 else (0.98, "right")
    arrow = "\N{LEFTWARDS ARROW}" if found.mean < 0 else "\N{RIGHTWARDS ARROW}"
    where = axes.get_yaxis_transform()
    told = f"{arrow} {found.in_words()}" if found.mean < 0 else f"{found.in_words()} {arrow}"
    text = axes.text(edge, place, told, transform=where, ha=align, va="center")
    text.set(fontsize=9, color=COLOURS["ink"])


def _cut_off(arms: list[ArmRecord], set_limits: Callable[[float, float], object]) -> list[ArmRecord]:
    """Limit an axis so that arms far off the others lie outside of it, and return those."""
    ends = {arm.name: _ends(arm) for arm in arms}
    bound = _FAR_OFF * float(np.quantile([max(map(abs, pair)) for pair in ends.values()], 0.75))
    outside = [arm for arm in arms if (found := arm.students["last"].difference) and abs(found.mean) > bound]
    if outside:
        inside = [ends[arm.name] for arm in arms if arm not in outside]
        low, high = min(0.0, *(pair[0] for pair in inside)), max(0.0, *(pair[1] for pair in inside))
        margin = 0.05 * (high - low)
        set_limits(max(low, -bound) - margin, min(high, bound) + margin)
    return outside


def _ends(arm: ArmRecord) -> tuple[float, float]:
    found = arm.students["last"].difference
    assert found is not None
    return (found.low, found.high) if found.is_known else (found.mean, found.mean)


def _outside_in_words(arms: list[ArmRecord]) -> str:
    return f" Outside of the axis: {', '.join(arm.name for arm in arms)}." if arms else ""


def draw_cost(task: TaskRecord) -> Drawing | None:
    """Draw the gain of every arm against its cost."""
    arms = [arm for arm in task.arms if arm.students["last"].difference and arm.cost_ratio]
    if len(arms) < 2:
        return None
    extra, gain = f"extra time of a run over {task.baseline}, %", f"{task.metric} over {task.baseline}, points"
    axes = new_axes(extra, gain, height=3.9)
    axes.axhline(0.0, color=COLOURS["muted"], linewidth=1.0)
    axes.axvline(0.0, color=COLOURS["muted"], linewidth=1.0)
    chosen = _highlighted(task)
    for arm in arms:
        difference, cost = arm.students["last"].difference, 100.0 * ((arm.cost_ratio or 1.0) - 1.0)
        assert difference is not None
        name = "ink" if arm.name == task.baseline else chosen.get(arm.name, "muted")
        colour, marker = COLOURS[name], dict(zip((*HUES, "ink"), (*_MARKERS, "X"), strict=True)).get(name, ".")
        if difference.is_known:
            axes.plot([cost, cost], [difference.low, difference.high], color=colour, linewidth=1.2, alpha=0.6)
        label = arm.name if arm.name in chosen or arm.name == task.baseline else None
        axes.plot([cost], [difference.mean], marker, color=colour, markersize=7, label=label)
    outside = _cut_off(arms, axes.set_ylim)
    add_legend(axes)
    slowest = max(arms, key=lambda arm: arm.cost_ratio or 0.0)
    caption = (
        "Higher is better, left is cheaper; bars are 95 % intervals. Times are medians over the seeds, in CPU time if "
        f"known. The most expensive arm, {slowest.name}, takes {slowest.cost_ratio:.2f} times as long."
        + _greys_in_words(task)
        + _outside_in_words(outside)
    )
    return Drawing(file_name(f"cost_{task.name}"), "Gain against cost", caption, figure_of(axes))


def draw_accuracies(task: TaskRecord) -> Drawing | None:
    """Draw the arms' validation accuracy, or AP, over the epochs, with intervals over the seeds."""
    axes = new_axes("epoch", f"validation {task.metric}, %", height=3.9)
    drawn = _draw_curves(axes, task, "validation_accuracy", scale=100.0)
    if not drawn:
        return None
    means, tops = zip(*drawn, strict=True)
    is_cut = style.set_accuracy_limits(axes, means, [float(top[-1]) for top in tops if np.isfinite(top[-1])])
    caption = (
        f"Means over the seeds. {_bands_in_words(task)} (Student's t) of each epoch. They are unpaired, so arms whose "
        "bands overlap can still differ in the paired comparison above." + _greys_in_words(task)
    )
    if is_cut:
        caption += " The first epochs lie below the axis."
    title = f"{capitalized(task.metric)} over epochs"
    return Drawing(file_name(f"accuracy_{task.name}"), title, caption, figure_of(axes))


def draw_temperatures(task: TaskRecord) -> Drawing | None:
    """Draw the mean temperature of the arms over the epochs."""
    axes = new_axes("epoch", "mean temperature", height=3.9)
    without = [arm.name for arm in task.arms if arm.mean_temperature is None]
    drawn = _draw_curves(axes, task, "temperature_mean", left_out=without)
    if not drawn:
        return None
    style.set_temperature_scale(axes, np.concatenate([curve for curves in drawn for curve in curves]))
    caption = (
        "Means over all instances of an epoch and over the seeds; of the student's temperature if teacher and student "
        f"have different ones. {_bands_in_words(task)} over the seeds." + _greys_in_words(task)
    )
    return Drawing(file_name(f"temperature_{task.name}"), "Temperature over training", caption, figure_of(axes))


def _highlighted(task: TaskRecord) -> dict[str, str]:
    """Return the colours of the best arms besides the baseline, by the last epoch's mean."""
    others = [arm.name for arm in task.arms if arm.name != task.baseline]
    if len(others) > _HIGHLIGHTED + 1:
        others = others[:_HIGHLIGHTED]
    return dict(zip(others, HUES, strict=False))


def _greys_in_words(task: TaskRecord) -> str:
    greys = len(task.arms) - 1 - len(_highlighted(task))
    return f" Grey: the {greys} other arms." if greys > 0 else ""


def _bands_in_words(task: TaskRecord) -> str:
    """Say which arms' bands are drawn."""
    if len(task.arms) <= _BANDS:
        return "Bands are 95 % intervals"
    return f"Bands, of the baseline and the {_BANDS - 1} best of the others, are 95 % intervals"


def _draw_curves(
    axes: Axes, task: TaskRecord, column: str, scale: float = 1.0, left_out: Sequence[str] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw a column of the histories of all arms except those left out, grey ones first.

    Return for every arm the means ``(epochs,)`` and the upper ends ``(epochs,)`` of what is drawn.
    """
    chosen = _highlighted(task)
    with_band = [task.baseline, *chosen][:_BANDS]
    drawn = []
    for arm in sorted(task.arms, key=lambda arm: (arm.name in chosen, arm.name == task.baseline)):
        epochs, values = arm.curves(column)
        if not len(epochs) or arm.name in left_out:
            continue
        mean = scale * values.mean(axis=0)
        half = scale * _half_interval(values) if arm.name in with_band else np.zeros(len(mean))
        drawn.append((mean, mean + half))
        if arm.name == task.baseline:
            colour, dash, label = COLOURS["ink"], "-", f"{arm.name} (baseline)"
        elif arm.name in chosen:
            colour, dash, label = COLOURS[chosen[arm.name]], style.DASHES[HUES.index(chosen[arm.name])], arm.name
        else:
            axes.plot(epochs, mean, color=COLOURS["muted"], linewidth=0.8, alpha=0.6)
            continue
        axes.plot(epochs, mean, color=colour, linestyle=dash, label=label)
        axes.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.14, linewidth=0)
    if drawn:
        style.set_count_scale(axes)
        add_legend(axes)
    return drawn


def _half_interval(values: np.ndarray) -> np.ndarray:
    """Return the half width of the 95 % interval (Student's t) of the mean over runs ``(runs, epochs)``; 0 for one."""
    count, epochs = values.shape
    return stats.t.ppf(0.975, count - 1) * stats.sem(values, axis=0) if count > 1 else np.zeros(epochs)
