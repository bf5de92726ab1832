"""The end of a run in a terminal: the table of its students, what it means, and the next command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.next_command import tell_next
from experiments.session.population.table import CANDIDATES, members_table, percent
from experiments.session.provenance import ACCURACY, metric_of
from experiments.session.telling.verdict import verdict

_EPOCHS = {"last": "last epoch", "best": "best epoch on validation"}


def print_summary(summary: dict[str, Any], folder: object) -> None:
    """Print the table of a finished run, what it means and what comes next."""
    console = Console()
    console.print(_table(summary))
    population = summary.get("population")
    if population is not None:
        console.print(members_table(population))
    if duplicates := summary["data"]["test_duplicates"]:
        _say(console, f"{duplicates} of the {summary['data']['test']} test images are training images too")
    if summary.get("stopped_early"):
        patience = summary["settings"]["patience"]
        _say(console, f"stopped after epoch {summary['epochs']}: the last {patience} brought no better student")
    for sentence in verdict(summary):
        _say(console, sentence)
    _say(console, _cost(summary))
    if (cost := cost_of_agent(summary)) is not None:
        _say(console, cost)
    _say(console, f"everything is in {folder}; curves: tensorboard --logdir {folder}")
    if folder is not None and Path(str(folder)).is_dir():
        tell_next("rlkd", "report", str(folder))


def cost_of_agent(summary: dict[str, Any]) -> str | None:
    """Return what an update costs with the agent beside one of the warm-up, or None if there are not both."""
    before, after = summary["fixed_step_ms"], summary["step_ms"]
    if before is None or after is None:
        return None
    costs = f"costs {after - before:.2f} ms" if after > before else "costs too little for so few updates to tell"
    source = summary["temperature_from"]
    return f"an update takes {before:.2f} ms in the warm-up and {after:.2f} ms with {source}, which {costs}"


def _table(summary: dict[str, Any]) -> Table:
    metric = metric_of(summary)
    title = f"{summary['dataset']}, {summary['method']}, temperatures from {summary['temperature_from']}"
    if metric != ACCURACY:
        title += f", {metric}"
    table = Table(title=title)
    for column in ("", "validation", "test"):
        table.add_column(column, justify="left" if not column else "right")
    for name, key in _rows(summary).items():
        figures = [summary.get(f"{key}_{part}_accuracy") for part in ("val", "test")]
        if any(figure is not None for figure in figures):
            table.add_row(name, *map(percent, figures), style="bold" if key == "student" else None)
    return table


def _rows(summary: dict[str, Any]) -> dict[str, str]:
    """Return the rows' names and the first part of their keys in the summary; the student that is kept comes last."""
    population, kept = summary.get("population"), summary.get("kept", "best")
    rows = {"teacher": "teacher", "student alone": "student_alone"}
    others = {"last": "student_last", "best": "student_best"}
    if population is not None and population["keep"] != "best":
        rows |= {f"best student, {_EPOCHS[epoch]}": key for epoch, key in others.items()}
        return {**rows, f"kept: {CANDIDATES[population['keep']]}": "student"}
    other = "last" if kept == "best" else "best"
    number = summary.get(f"student_{other}_epoch")
    told = f" ({number})" if number and other == "best" else ""
    rows[f"student, {_EPOCHS[other]}{told}"] = others[other]
    number = f" ({summary['student_epoch']})" if kept == "best" else ""
    return {**rows, f"student, {_EPOCHS[kept]}{number}, kept": "student"}


def _cost(summary: dict[str, Any]) -> str:
    total = summary["seconds"] or 1.0
    parts = ("environment", "agent", "evaluation", "logging")
    shares = ", ".join(f"{part} {summary[f'{part}_seconds'] / total:.0%}" for part in parts)
    return f"{summary['steps']} updates in {total:.1f} s: {shares}"


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
