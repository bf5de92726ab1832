"""What a comparison's numbers mean, in words made from the numbers alone."""

from __future__ import annotations

from experiments.report.comparison.records import ArmRecord, TaskRecord
from experiments.session.provenance import ACCURACY


def describe(task: TaskRecord) -> str:
    """Say in words which arms differ from the baseline, in the last epoch and beyond chance, and which do not."""
    differences = {arm.name: arm.students["last"].difference for arm in task.arms if arm.name != task.baseline}
    known = {name: found for name, found in differences.items() if found is not None and found.is_known}
    base = task.arm(task.baseline)
    mean = base.students["last"].mean
    words = f"On {task.name}, over {_seeds_in_words(base)}, {task.baseline} reaches"
    words += " no result." if mean is None else f" {_figure(mean.mean, task.metric)} on the test images (last epoch)."
    above = [f"{name} {one.in_words()}" for name, one in known.items() if one.low > 0.0]
    below = [f"{name} {one.in_words()}" for name, one in known.items() if one.high < 0.0]
    rest = [name for name, one in known.items() if not one.is_clear_of_zero]
    if above:
        words += f" Better, with an interval clear of zero: {'; '.join(above)}."
    if below:
        words += f" Worse, with an interval clear of zero: {'; '.join(below)}."
    if rest:
        widest = max((known[name].high - known[name].low) / 2 for name in rest)
        others = "No arm" if not above and not below else "None of the others"
        words += (
            f" {others} can be told from {task.baseline}: {', '.join(rest)}. That is no proof of equality; their "
            f"intervals are as wide as ± {widest:.2f} points."
        )
    unknown = [name for name in differences if name not in known]
    if unknown:
        words += f" Too few runs to say anything: {', '.join(unknown)}."
    return words + _regret_in_words(task) + _chance_in_words(len(known), len(above) + len(below))


def _figure(percent: float, metric: str) -> str:
    return f"{percent:.2f} %" if metric == ACCURACY else f"an {metric} of {percent:.2f} %"


def _regret_in_words(task: TaskRecord) -> str:
    best = task.best_fixed["last"]
    if best is None or best == task.baseline:
        return ""
    regrets = {arm.name: arm.students["last"].regret for arm in task.arms if arm.name != best}
    above = [name for name, one in regrets.items() if one is not None and one.is_known and one.low > 0.0]
    told = f"above it, clear of zero: {', '.join(above)}" if above else "no arm is above it, clear of zero"
    return f" The best fixed temperature in hindsight is {best}; {told}."


def _chance_in_words(comparisons: int, found: int) -> str:
    """Remind of what several comparisons at once mean."""
    if comparisons < 5 or not found:
        return ""
    return (
        f" If all {comparisons} arms equalled the baseline, {0.05 * comparisons:.1f} of them would on average be found "
        "different by chance."
    )


def _seeds_in_words(arm: ArmRecord) -> str:
    return "1 seed" if arm.count == 1 else f"{arm.count} seeds"
