"""Sentences that interpret a comparison, made from its numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.comparison.loading import ComparisonRecord, Interval, TaskRecord
from experiments.report.formatting import signed
from experiments.session.provenance import ACCURACY

_NAMED = 3  # arms that a sentence names; the table has them all


def describe(task: TaskRecord) -> str:
    """Say which arms differ from the baseline in the last epoch beyond chance, and how many do not."""
    known: dict[str, Interval] = {}
    for arm in task.compared:
        found = arm.students["last"].difference
        if found is not None and found.is_known:
            known[arm.name] = found
    above = [f"{name} {one.in_words()}" for name, one in known.items() if one.low > 0.0]
    below = [f"{name} {one.in_words()}" for name, one in known.items() if one.high < 0.0]
    others = len(known) - len(above) - len(below)
    parts = [f"clearly better {_are(above)}"] if above else []
    parts += [f"clearly worse {_are(below[::-1])}"] if below else []
    if others:
        few = "1 arm is" if others == 1 else f"{others} arms are"
        parts.append(f"{few} not told apart from it" if parts else "no arm is told apart from it")
    unknown = [name for arm in task.arms if (name := arm.name) not in known and name != task.baseline]
    if unknown:
        parts.append(f"too few seeds for a conclusion have {_list(unknown)}")
    words = f"On {task.name}, {_baseline(task)}"
    return (f"{words}; {'; '.join(parts)}." if parts else f"{words}.") + _regret_in_words(task)


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
    if above:
        words += f"clearly above zero {_are(above)}."
    else:
        assert arms[0].mean is not None
        words += f"no arm is clearly above zero; the highest mean has {arms[0].name}, {arms[0].mean.in_words()}."
    best = max(arms, key=lambda arm: arm.worst[1] if arm.worst else float("-inf"))
    if best.worst is not None:
        words += f" The least loss on its worst task has {best.name}: {signed(best.worst[1])} on {best.worst[0]}."
    return [words]


def _baseline(task: TaskRecord) -> str:
    """Say what the baseline reaches, on how many seeds."""
    base = task.arm(task.baseline)
    mean, seeds = base.students["last"].mean, "1 seed" if base.count == 1 else f"{base.count} seeds"
    if mean is None:
        return f"the baseline {task.baseline} has no result"
    unit = "" if task.metric == ACCURACY else f"an {task.metric} of "
    return f"over {seeds}, the baseline {task.baseline} reaches {unit}{mean.mean:.2f} % on the test images"


def _are(arms: Sequence[str]) -> str:
    return f"{'is' if len(arms) == 1 else 'are'} {_list(arms)}"


def _list(arms: Sequence[str]) -> str:
    """Name the first arms and count the others."""
    more = len(arms) - _NAMED
    return ", ".join(arms[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _regret_in_words(task: TaskRecord) -> str:
    best = task.best_fixed["last"]
    if best is None or best == task.baseline:
        return ""
    regrets = {arm.name: arm.students["last"].regret for arm in task.arms if arm.name != best}
    above = [name for name, one in regrets.items() if one is not None and one.is_known and one.low > 0.0]
    words = f"clearly better {_are(above)}" if above else "no arm is clearly better"
    return f" The best fixed temperature in hindsight is {best}; {words} than it."
