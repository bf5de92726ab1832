"""The figure of a comparison over several tasks: the regret of every method on every task."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from experiments.report import style
from experiments.report.comparison.loading import ArmOverTasks, ComparisonRecord, Interval, TaskRecord
from experiments.report.formatting import signed
from experiments.report.style import COLOURS, HUES, Drawing, add_legend, figure_of, new_axes

_MARKERS = "osD^vPX*"
_ROW = 0.3  # inches
_WIDE, _NARROW = 8.2, 5.6  # inches; the narrow one can be read on a phone
_SPREAD = 0.62  # of a row's height, over which the dots of the tasks are spread
_INSIDE = 0.94  # share of all dots that lie inside of the axis; those far to the left lie at its edge


def draw_regrets(comparison: ComparisonRecord, most: int | None = None) -> Drawing | None:
    """Draw a row for every arm, or for the first ones, a dot for every task.

    Arms without a result on every task are left out, as they have no mean over the same tasks.
    """
    tasks, arms = comparison.tasks, comparison.complete
    if len(tasks) < 2 or not arms:
        return None
    left_out, arms = arms[most or len(arms) :], arms[:most]
    metrics = " or ".join(dict.fromkeys(task.metric for task in tasks))
    is_whole = most is None
    label = f"points of test {metrics} over the best fixed temperature of each task in hindsight"
    height = (1.9 if is_whole else 2.5) + _ROW * len(arms)
    axes = new_axes(label if is_whole else fill(label, 60), "", height, _WIDE if is_whole else _NARROW)
    regrets = {(arm.name, task.name): _regret(task, arm.name) for arm in arms for task in tasks}
    low, high = _limits([found.mean for found in regrets.values() if found], arms)
    looks = _looks(comparison)
    for place, arm in enumerate(arms):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color=COLOURS["grid"], alpha=0.35, linewidth=0)
        for number, task in enumerate(tasks):
            height = place + _SPREAD * ((number + 0.5) / len(tasks) - 0.5)
            _draw_dot(axes, height, regrets[arm.name, task.name], looks[task.name], low)
        _draw_mean(axes, place, arm, low)
    axes.axvline(0.0, color=COLOURS["ink"], linewidth=1.4, zorder=2.5)
    axes.set_xlim(low, high)
    axes.set_ylim(len(arms) - 0.5, -1.35)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    for name, arm in zip(axes.get_yticklabels(), arms, strict=True):
        name.set_color(COLOURS["muted" if _is_fixed(comparison, arm.name) else "ink"])
    style.hide_row_ticks(axes)
    _write_figures(axes, arms)
    _add_legend(axes, tasks, looks, columns=4 if is_whole else 3)
    caption = _caption(arms, tasks, low) + (
        f" Not shown, as they are further down: {len(left_out)}." if left_out else ""
    )
    if is_whole:
        return Drawing("regrets", "Every method on every task", caption, figure_of(axes))
    return Drawing("regrets_of_the_first", f"The first {len(arms)} methods on every task", caption, figure_of(axes))


def _is_fixed(comparison: ComparisonRecord, arm: str) -> bool:
    """Whether an arm distils at a fixed temperature, which are shown in grey."""
    options = (comparison.content.get("arms") or {}).get(arm) or {}
    return options.get("rule") == "fixed" and "method" not in options


def _regret(task: TaskRecord, arm: str) -> Interval | None:
    return task.arm(arm).students["last"].regret


def _limits(regrets: list[float], arms: Sequence[ArmOverTasks]) -> tuple[float, float]:
    """Return the ends of the axis, between which all gains, most losses and the means of all but the worst lie."""
    means = [arm.mean.mean for arm in arms if arm.mean is not None]
    low = min(float(np.quantile(regrets, 1 - _INSIDE)), float(np.quantile(means, 0.1)), -0.5)
    high = max(*regrets, 0.5)
    room = 0.04 * (high - low)
    return low - room, high + room


def _looks(comparison: ComparisonRecord) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every task: a colour for a data set, a marker for one of its tasks."""
    settings, given = comparison.content.get("settings") or {}, comparison.content.get("tasks") or {}
    looks, sets = dict[str, tuple[str, str]](), list[str]()
    for task in comparison.tasks:
        dataset = str((given.get(task.name) or {}).get("dataset", settings.get("dataset", "digits")))
        sets.append(dataset)
        known = list(dict.fromkeys(sets))
        hue, marker = HUES[known.index(dataset) % len(HUES)], _MARKERS[(sets.count(dataset) - 1) % len(_MARKERS)]
        looks[task.name] = (hue, marker)
    return looks


def _draw_dot(axes: Axes, height: float, regret: Interval | None, look: tuple[str, str], low: float) -> None:
    """Draw a task's regret with its interval, or an arrow at the edge if it lies to the left of the axis."""
    if regret is None:
        return
    colour, marker = COLOURS[look[0]], look[1]
    if regret.mean < low:
        across = blended_transform_factory(axes.transAxes, axes.transData)
        axes.plot([0.008], [height], "<", color=colour, markersize=4.5, transform=across, clip_on=False)
        return
    if regret.is_known:
        axes.plot([regret.low, regret.high], [height] * 2, color=colour, linewidth=0.9, alpha=0.4, zorder=2.2)
    axes.plot([regret.mean], [height], marker, color=colour, markersize=4.8, markeredgewidth=0, zorder=3)


def _draw_mean(axes: Axes, place: int, arm: ArmOverTasks, low: float) -> None:
    """Draw the mean over the tasks as an upright stroke."""
    if arm.mean is None or arm.mean.mean < low:
        return
    axes.plot([arm.mean.mean] * 2, [place - 0.4, place + 0.4], color=COLOURS["ink"], linewidth=2.6, zorder=4)


def _write_figures(axes: Axes, arms: Sequence[ArmOverTasks]) -> None:
    """Write the mean of every arm and the number of tasks without regret to the right of its row."""
    where = axes.get_yaxis_transform()
    share = (_WIDE / figure_of(axes).get_figwidth()) ** 1.3
    ends = (0.075 * share, 0.095 * share)  # of the two columns, in widths of the axes
    for place, arm in enumerate(arms):
        mean = "–" if arm.mean is None else signed(arm.mean.mean)
        axes.text(
            1.0 + ends[0], place, mean, transform=where, ha="right", va="center", fontsize=9.5, color=COLOURS["ink"]
        )
        count = f"{arm.at_or_above} of {arm.tasks}"
        axes.text(
            1.0 + ends[1], place, count, transform=where, ha="left", va="center", fontsize=9.5, color=COLOURS["muted"]
        )
    for end, text, align in ((ends[0], "mean", "right"), (ends[1], "≥ 0", "left")):
        axes.text(1.0 + end, -0.85, text, transform=where, ha=align, va="center", fontsize=9, color=COLOURS["muted"])
    for column, text, align in ((-0.15, "better →", "left"), (0.15, "← worse", "right")):
        axes.text(-column, -0.85, text, ha=align, va="center", fontsize=9, color=COLOURS["muted"])


def _add_legend(axes: Axes, tasks: Sequence[TaskRecord], looks: dict[str, tuple[str, str]], columns: int) -> None:
    for task in tasks:
        hue, marker = looks[task.name]
        axes.add_line(Line2D([], [], linestyle="", marker=marker, color=COLOURS[hue], label=task.name))
    mean = Line2D([], [], linestyle="", marker="|", color=COLOURS["ink"], label="mean over the tasks")
    mean.set(markersize=12, markeredgewidth=2.6)
    axes.add_line(mean)
    add_legend(axes, columns=columns)


def _caption(arms: Sequence[ArmOverTasks], tasks: Sequence[TaskRecord], low: float) -> str:
    best = arms[0]
    assert best.mean is not None
    outside = sum(1 for arm in arms for task in tasks if (found := _regret(task, arm.name)) and found.mean < low)
    words = (
        f"A row for each of {len(arms)} methods, sorted by the mean over {len(tasks)} tasks, fixed temperatures in "
        "grey; a dot for each task, with the 95 % interval over its seeds. Zero is the best fixed temperature of each "
        "task, chosen in hindsight from these results. On the right: the mean, and on how many tasks a method is at "
        "or above zero. "
        f"First is {best.name} with {signed(best.mean.mean)} points"
    )
    words += f" ({signed(best.mean.low)} to {signed(best.mean.high)} over the tasks)." if best.mean.is_known else "."
    if best.worst is not None:
        words += f" Its worst task is {best.worst[0]} with {signed(best.worst[1])}."
    return words + (f" Arrows at the left edge: {outside} results below the axis." if outside else "")
