"""The report of a single run."""

from __future__ import annotations

from typing import Any

from experiments.reporting.instance_figures import (
    draw_reward_against_temperature,
    draw_temperature_against_confidence,
    draw_temperature_against_margin,
    draw_temperature_by_class,
)
from experiments.reporting.page import Page, Section, Table, Tile, settings_table
from experiments.reporting.records import RunRecord
from experiments.reporting.run_figures import (
    draw_accuracy_over_epochs,
    draw_accuracy_over_time,
    draw_credit,
    draw_temperature_over_epochs,
    draw_time,
)


def run_page(run: RunRecord) -> Page:
    """Put a run's report together, of what its folder holds."""
    config = run.config
    sections = [
        Section("How well, and when", [draw_accuracy_over_epochs(run), draw_accuracy_over_time(run)]),
        Section(
            "Which temperatures",
            [
                draw_temperature_over_epochs(run),
                draw_temperature_against_confidence(run),
                draw_temperature_against_margin(run),
                draw_temperature_by_class(run),
            ],
        ),
        Section("What they earned", [draw_reward_against_temperature(run), draw_credit(run)]),
        Section("What it cost", [draw_time(run)]),
    ]
    return Page(
        kind="run",
        title=f"{config.get('dataset')}, {config.get('method')}, temperatures from {run.chooser}",
        subtitle=_subtitle(run),
        warnings=_warnings(run),
        tiles=_tiles(run),
        reading=[_reading(run)],
        sections=sections,
        notes=_missing(run),
        tables=[_accuracy_table(run), settings_table("Settings", config), *_versions(run)],
    )


def _subtitle(run: RunRecord) -> str:
    config, summary = run.config, run.summary or {}
    student = summary.get("student") or config.get("student")
    parts = [f"student {student}", f"{config.get('epochs')} epochs", f"seed {config.get('seed')}"]
    if "device" in summary:
        parts.append(f"on {summary['device']}")
    return ", ".join(parts)


def _warnings(run: RunRecord) -> list[str]:
    epochs = len(run.history["epoch"])
    if run.summary is None:
        known = f"what is shown ends with epoch {epochs}" if epochs else "nothing has been recorded yet"
        return [
            f"This run has not finished: {known} of {run.config.get('epochs')}. There is no test accuracy; go on with "
            f"rlkd distill --resume --out {run.folder}"
        ]
    if run.summary.get("diverged"):
        return [
            f"This run diverged at update {run.figure('steps') or 0:.0f}: its loss was no longer finite. The "
            "figures are those of the last good student."
        ]
    return []


def _tiles(run: RunRecord) -> list[Tile]:
    candidates = [
        ("student, last epoch", run.percent("student_last_test_accuracy"), "test accuracy"),
        (
            "student, chosen by validation",
            run.percent("student_test_accuracy"),
            f"test accuracy, epoch {run.figure('student_epoch') or 0:.0f}",
        ),
        ("student alone, last epoch", run.percent("student_alone_last_test_accuracy"), "without a teacher"),
        ("teacher", run.percent("teacher_test_accuracy"), "test accuracy"),
    ]
    tiles = [Tile(name, f"{value:.2f} %", note) for name, value, note in candidates if value is not None]
    seconds = run.figure("seconds")
    if seconds is not None:
        tiles.append(Tile("cost", f"{seconds:.1f} s", _step_cost(run)))
    return tiles


def _step_cost(run: RunRecord) -> str:
    fixed, acting = run.figure("fixed_step_ms"), run.figure("step_ms")
    if fixed and acting:
        return f"{acting:.1f} ms an update with {run.chooser}, {fixed:.1f} ms at the fixed temperature"
    return f"{acting:.1f} ms an update" if acting else ""


def _reading(run: RunRecord) -> str:
    """Say in words what the test accuracies are, and what a single run cannot tell."""
    last, teacher = run.percent("student_last_test_accuracy"), run.percent("teacher_test_accuracy")
    if last is None:
        return ""
    images = ((run.summary or {}).get("data") or {}).get("test")
    words = f"The student of the last epoch is right on {last:.2f} %" + (
        f" of {images:,} test images" if images else ""
    )
    if teacher is not None:
        words += f", {_points(last - teacher)} the teacher"
    alone = run.percent("student_alone_last_test_accuracy")
    if alone is not None:
        words += f" and {_points(last - alone)} the same student trained alone from the same start"
    return (
        words + ". This is one run: whether its way of setting temperatures is better than another takes several seeds "
        "(rlkd compare)."
    )


def _points(difference: float) -> str:
    if abs(difference) < 0.005:
        return "as many as"
    return f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}"


def _accuracy_table(run: RunRecord) -> Table | None:
    """Return all accuracies in a table: what the marks in the figures say, as text."""
    rows = [
        ["teacher", "", _cell(run.percent("teacher_test_accuracy"))],
        [
            "student alone, chosen by validation",
            _cell(run.percent("student_alone_val_accuracy")),
            _cell(run.percent("student_alone_test_accuracy")),
        ],
        ["student alone, last epoch", "", _cell(run.percent("student_alone_last_test_accuracy"))],
        [
            f"student, chosen by validation (epoch {run.figure('student_epoch') or 0:.0f})",
            _cell(run.percent("student_val_accuracy")),
            _cell(run.percent("student_test_accuracy")),
        ],
        [
            "student, last epoch",
            _cell(run.percent("student_last_val_accuracy")),
            _cell(run.percent("student_last_test_accuracy")),
        ],
    ]
    known = [row for row in rows if any(row[1:])]
    return Table("Accuracies, %", ["", "validation", "test"], known) if known else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _missing(run: RunRecord) -> list[str]:
    """Say what is not shown, and why."""
    notes = []
    if not len(run.history["epoch"]):
        notes.append("There are no curves: the folder holds no recorded epoch.")
    if not len(run.trace["step"]):
        notes.append("Temperatures are not shown by instance: the folder holds no trace.")
    elif not bool((run.trace["reward"] == run.trace["reward"]).any()):
        notes.append("There are no instance rewards: only an agent with a calibrator other than uniform has them.")
    if run.credit is None:
        notes.append(
            "Credit quality is not shown: measure it with rlkd credit and name the file with --credit, or put "
            "credit.json into the run's folder."
        )
    return notes


def _versions(run: RunRecord) -> list[Table]:
    versions: dict[str, Any] = (run.summary or {}).get("versions") or {}
    return [settings_table("Versions", versions)] if versions else []
