"""Sentences that interpret a comparison, made from its numbers alone."""

from __future__ import annotations

from experiments.report.comparison.loading import ComparisonRecord, TaskRecord
from experiments.report.formatting import signed
from experiments.session.provenance import ACCURACY


def describe(task: TaskRecord) -> str:
    """Say which arms differ from the baseline in the last epoch beyond chance, and which do not."""
    differences = {arm.name: arm.students["last"].difference for arm in task.arms if arm.name != task.baseline}
    known = {name: found for name, found in differences.items() if found is not None and found.is_known}
    base = task.arm(task.baseline)
    mean = base.students["last"].mean
    result = "no result"
    if mean is not None:
        unit = "" if task.metric == ACCURACY else f"an {task.metric} of "
        result = f"{unit}{mean.mean:.2f} % on the test images (last epoch)"
    seeds = "1 seed" if base.count == 1 else f"{base.count} seeds"
    words = f"On {task.name}, over {seeds}, {task.baseline} reaches {result}."
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
            f" {others} differs clearly from {task.baseline}: {', '.join(rest)}. That does not prove equality; the "
            f"widest of their intervals is ± {widest:.2f} points."
        )
    unknown = [name for name in differences if name not in known]
    if unknown:
        words += f" Too few runs for a conclusion: {', '.join(unknown)}."
    return words + _regret_in_words(task) + _chance_in_words(len(known), len(above) + len(below))


def describe_over_tasks(comparison: ComparisonRecord) -> list[str]:
    """Say which arms are above the best fixed temperatures in the mean over all tasks; nothing for a single task."""
    count = len(comparison.tasks)
    arms = [arm for arm in comparison.over_tasks if arm.tasks == count and arm.mean is not None]
    if not arms:
        return []
    above = [
        f"{arm.name} {arm.mean.in_words()}" for arm in arms if arm.mean and arm.mean.is_known and arm.mean.low > 0.0
    ]
    words = f"Over {count} tasks, against the best fixed temperature of each in hindsight, "
    words += (
        f"above zero with the interval over the tasks: {'; '.join(above)}."
        if above
        else "no arm is clearly above zero."
    )
    best = max(arms, key=lambda arm: arm.worst[1] if arm.worst else float("-inf"))
    if best.worst is not None:
        words += f" The least loss on its worst task has {best.name}: {signed(best.worst[1])} on {best.worst[0]}."
    return [words]


def _regret_in_words(task: TaskRecord) -> str:
    best = task.best_fixed["last"]
    if best is None or best == task.baseline:
        return ""
    regrets = {arm.name: arm.students["last"].regret for arm in task.arms if arm.name != best}
    above = [name for name, one in regrets.items() if one is not None and one.is_known and one.low > 0.0]
    words = f"clearly better are {', '.join(above)}" if above else "no arm is clearly better"
    return f" The best fixed temperature in hindsight is {best}; {words}."


def _chance_in_words(comparisons: int, found: int) -> str:
    """Say how many differences chance alone would produce among several comparisons."""
    if comparisons < 5 or not found:
        return ""
    return (
        f" If all {comparisons} arms were as good as the baseline, {0.05 * comparisons:.1f} of them would on average "
        "seem to differ by chance."
    )
