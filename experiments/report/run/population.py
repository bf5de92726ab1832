"""The part of a run's page that is about a population: its members' curves, and which of them won."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.report import style
from experiments.report.formatting import capitalized, signed
from experiments.report.page import Section, Table
from experiments.report.run.loading import RunRecord
from experiments.report.style import COLOURS, DASHES, HUES, Drawing, add_legend, figure_of, new_axes
from experiments.session.population.table import CANDIDATES

_COLUMNS = {
    "validation": "val_accuracy",
    "test": "test_accuracy",
    "last epoch: validation": "last_val_accuracy",
    "last epoch: test": "last_test_accuracy",
}


def population_sections(run: RunRecord) -> list[Section]:
    """Return the section on a population; none for a run of one student."""
    if not run.members:
        return []
    population = run.population
    drawings: list[Drawing | None] = [_draw_over_epochs(run)]
    if population is None:
        return [Section("The members", drawings)]
    drawings.append(_draw_by_temperature(run, population))
    return [Section("The members", drawings, _members_table(run, population), text=_in_words(run, population))]


def _in_words(run: RunRecord, population: dict[str, Any]) -> str:
    """Say which member won, by how much, and what else may be kept."""
    best = next(member for member in population["members"] if member["name"] == population["best"])
    others = [member for member in population["members"] if member is not best]
    ahead = 100.0 * (best["val_accuracy"] - max(member["val_accuracy"] for member in others))
    words = (
        f"The member {best['name']} won: after epoch {best['epoch']} its {run.metric} on the validation images was "
        f"{100.0 * best['val_accuracy']:.2f} %, {signed(ahead)} points to the next"
        f"{' (among equals the loss decides)' if ahead == 0.0 else ''}."
    )
    known = {member["name"]: member["test_accuracy"] for member in population["members"]}
    if best["test_accuracy"] is not None:
        words += f" Of the test images it classifies {100.0 * best['test_accuracy']:.2f} % correctly"
        highest = max(known, key=lambda name: known[name] or 0.0)
        words += (
            ", as many as any member."
            if known[highest] <= best["test_accuracy"]
            else f"; in hindsight {highest} would have been best there, with {100.0 * known[highest]:.2f} %."
        )
    return f"{words} What is kept is the {CANDIDATES[population['keep']]}."


def _members_table(run: RunRecord, population: dict[str, Any]) -> Table:
    rows = [
        [
            member["name"],
            _number(member["mean_temperature"]),
            str(member["epoch"]),
            *(_percent(member[key]) for key in _COLUMNS.values()),
        ]
        for member in population["members"]
    ]
    for name, candidate in population["candidates"].items():
        if name != "best":
            rows.append(
                [CANDIDATES[name], "", "", _percent(candidate["val_accuracy"]), _percent(candidate["test_accuracy"])]
            )
    width = 3 + len(_COLUMNS)
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    return Table(f"{capitalized(run.metric)} of the members, %", ["", "mean T", "best epoch", *_COLUMNS], padded)


def _draw_over_epochs(run: RunRecord) -> Drawing:
    """Draw the validation accuracy of all members over the epochs."""
    axes = new_axes("epoch", f"validation {run.metric}, %", height=3.6)
    best = (run.population or {}).get("best")
    for number, (name, history) in enumerate(run.members.items()):
        axes.plot(
            history["epoch"],
            100 * history["validation_accuracy"],
            color=COLOURS[HUES[number % len(HUES)]],
            linestyle=DASHES[number // len(HUES) % len(DASHES)],
            linewidth=2.4 if name == best else 1.0,
            label=f"{name} (won)" if name == best else name,
            zorder=3 if name == best else 2,
        )
    style.set_count_scale(axes)
    add_legend(axes, columns=3)
    caption = "Every curve is a member; all start alike and see the same batches."
    if best is not None:
        caption += f" The thick one is {best}, whose best epoch is the best of all."
    return Drawing("population_over_epochs", f"Validation {run.metric} of the members", caption, figure_of(axes))


def _draw_by_temperature(run: RunRecord, population: dict[str, Any]) -> Drawing | None:
    """Draw the accuracies of the members' best students by their mean temperatures, if these differ."""
    members = [member for member in population["members"] if member["mean_temperature"]]
    temperatures = np.array([member["mean_temperature"] for member in members])
    if len(members) < 2 or temperatures.max() < 1.1 * temperatures.min():
        return None
    axes = new_axes("mean temperature", f"{run.metric} of the best epoch, %")
    for key, colour, marker, label in (
        ("val_accuracy", "blue", "o", "validation"),
        ("test_accuracy", "vermilion", "D", "test"),
    ):
        values = [np.nan if member[key] is None else 100.0 * member[key] for member in members]
        axes.plot(temperatures, values, marker, color=COLOURS[colour], label=label)
    axes.set_xscale("log")
    style.set_log_ticks(axes.xaxis)
    add_legend(axes)
    caption = (
        "The validation images choose the member and its epoch, so their accuracies are a little too high; the test "
        "images choose nothing."
    )
    return Drawing("population_by_temperature", f"{capitalized(run.metric)} by temperature", caption, figure_of(axes))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100.0 * share:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
