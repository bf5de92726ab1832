"""The table of a finished population."""

from __future__ import annotations

from typing import Any

from rich.table import Table

CANDIDATES = {
    "best": "best student",
    "average-weights": "average of all weights",
    "ensemble": "ensemble of all",
}
"""What may be kept of a population, by the names of the option ``keep``."""


def members_table(population: dict[str, Any]) -> Table:
    """Return validation and test accuracies of every member, of its best and last epochs, and of what may be kept.

    The table fits a terminal of 80 columns.
    """
    table = Table(title=f"a population of {len(population['members'])}, {population['mode']}")
    table.add_column("", no_wrap=True)
    for column in ("mean T", "best epoch", "val", "test", "last val", "last test"):
        table.add_column(column, justify="right")
    for member in population["members"]:
        name = f"{member['name']}{' (diverged)' if member['diverged'] else ''}"
        cells = [percent(member[f"{key}_accuracy"]) for key in ("val", "test", "last_val", "last_test")]
        style = "bold" if member["name"] == population["best"] else None
        mean = member["mean_temperature"]
        table.add_row(name, "–" if mean is None else f"{mean:.3g}", str(member["epoch"]), *cells, style=style)
    table.add_section()
    for name, candidate in population["candidates"].items():
        told = f"{name}{' (kept)' if name == population['keep'] else ''}"
        table.add_row(told, "", "", percent(candidate["val_accuracy"]), percent(candidate["test_accuracy"]))
    return table


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash for one that is not known."""
    return "–" if share is None else f"{share:.2%}"
