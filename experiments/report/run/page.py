"""The report of a single run as a page."""

from __future__ import annotations

import math
from typing import Any

from experiments.report.formatting import capitalized
from experiments.report.page import Page, Section, Table, Tile, settings_table
from experiments.report.run import figures, instance_figures
from experiments.report.run.detection_figures import LEAST_SCORE, draw_detections
from experiments.report.run.loading import RunRecord
from experiments.report.run.population import population_sections
from experiments.session.provenance import ACCURACY


def run_page(run: RunRecord) -> Page:
    """Return the report of a run from the content of its folder."""
    config = run.config
    sections = [
        *population_sections(run),
        Section("How well, and when", [figures.draw_accuracy_over_epochs(run), figures.draw_accuracy_over_time(run)]),
        *_detection_sections(run),
        Section(
            "Which temperatures",
            [
                figures.draw_temperature_over_epochs(run),
                instance_figures.draw_temperature_against_confidence(run),
                instance_figures.draw_temperature_against_margin(run),
                instance_figures.draw_temperature_by_class(run),
            ],
        ),
        Section("What they earned", [instance_figures.draw_reward_against_temperature(run), figures.draw_credit(run)]),
        Section("What it cost", [figures.draw_time(run)]),
    ]
    return Page(
        kind="run",
        title=f"{config.get('dataset')}, {config.get('method')}, temperatures from {run.chooser}{_of_how_many(run)}",
        subtitle=_subtitle(run),
        warnings=_warnings(run),
        tiles=_tiles(run),
        interpretation=[_interpretation(run)],
        sections=sections,
        notes=_missing(run),
        tables=[_accuracy_table(run), settings_table("Settings", config), *_versions(run)],
    )


def _of_how_many(run: RunRecord) -> str:
    return f", a population of {len(run.members)}" if run.members else ""


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
            f"This run has not finished: {known} of {run.config.get('epochs')}. There is no test result; continue "
            f"it with rlkd distill --resume --out {run.folder}"
        ]
    if run.summary.get("diverged"):
        return [
            f"This run diverged at update {run.number('steps') or 0:.0f}: its loss was no longer finite. The "
            "results are those of the last good student."
        ]
    return []


def _tiles(run: RunRecord) -> list[Tile]:
    candidates = [
        ("student, last epoch", run.percent("student_last_test_accuracy"), f"test {run.metric}"),
        (
            "student, chosen by validation",
            run.percent("student_test_accuracy"),
            f"test {run.metric}, epoch {run.number('student_epoch') or 0:.0f}",
        ),
        ("student alone, last epoch", run.percent("student_alone_last_test_accuracy"), "without a teacher"),
        ("teacher", run.percent("teacher_test_accuracy"), f"test {run.metric}"),
    ]
    tiles = [Tile(name, f"{value:.2f} %", note) for name, value, note in candidates if value is not None]
    seconds = run.number("seconds")
    if seconds is not None:
        tiles.append(Tile("cost", f"{seconds:.1f} s", _step_cost(run)))
    return tiles


def _step_cost(run: RunRecord) -> str:
    fixed, acting = run.number("fixed_step_ms"), run.number("step_ms")
    if fixed and acting:
        return f"{acting:.1f} ms an update with {run.chooser}, {fixed:.1f} ms at the fixed temperature"
    return f"{acting:.1f} ms an update" if acting else ""


def _interpretation(run: RunRecord) -> str:
    """Describe the test results, and say what a single run cannot show."""
    last, teacher = run.percent("student_last_test_accuracy"), run.percent("teacher_test_accuracy")
    if last is None:
        return ""
    images = ((run.summary or {}).get("data") or {}).get("test")
    if run.metric == ACCURACY:
        words = f"The student of the last epoch classifies {last:.2f} %"
        words += f" of {images:,} test images correctly" if images else " of the test images correctly"
    else:
        words = f"The student of the last epoch has an {run.metric} of {last:.2f} %"
        words += f" on {images:,} test images" if images else ""
    if teacher is not None:
        words += f", {_points(last - teacher)} the teacher"
    alone = run.percent("student_alone_last_test_accuracy")
    if alone is not None:
        words += f" and {_points(last - alone)} the same student trained alone from the same start"
    return (
        words + ". This is a single run: finding out whether its temperatures are better than others takes several "
        "seeds (rlkd compare)."
    )


def _points(difference: float) -> str:
    if abs(difference) < 0.005:
        return "level with"
    return f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}"


def _accuracy_table(run: RunRecord) -> Table | None:
    """Return all accuracies, or APs, as a table, for readers who cannot see the marks in the figures."""
    epoch = f"{run.number('student_epoch') or 0:.0f}"
    keys = {
        "teacher": ("", "teacher_test_accuracy"),
        "student alone, chosen by validation": ("student_alone_val_accuracy", "student_alone_test_accuracy"),
        "student alone, last epoch": ("", "student_alone_last_test_accuracy"),
        f"student, chosen by validation (epoch {epoch})": ("student_val_accuracy", "student_test_accuracy"),
        "student, last epoch": ("student_last_val_accuracy", "student_last_test_accuracy"),
    }
    rows = [[name, *(_cell(run.percent(key)) for key in pair)] for name, pair in keys.items()]
    known = [row for row in rows if any(row[1:])]
    return Table(f"{capitalized(run.metric)}, %", ["", "validation", "test"], known) if known else None


def _detection_sections(run: RunRecord) -> list[Section]:
    """Return the metrics and pictures of detections; nothing for runs of classifiers."""
    sections = []
    if run.details:
        names = list(dict.fromkeys(name for metrics in run.details.values() for name in metrics))
        rows = [[network, *(_share(metrics.get(name)) for name in names)] for network, metrics in run.details.items()]
        note = "Small objects have an area below 32² pixels of the image's file, large ones above 96²."
        columns = ["", *(name.replace("_", " ") for name in names)]
        table = Table(f"{run.metric} in parts", columns, rows, note=note if "AP_small" in names else "")
        sections.append(Section(f"{run.metric} on the test images, %", [], table))
    if run.detections is not None:
        text = (
            f"Detections with a score of at least {LEAST_SCORE:g} are shown, coloured by class. The proposals are the "
            "instances, on which student and teacher are compared; their colours show temperatures on one scale for "
            "all images."
        )
        drawings = draw_detections(run.detections)
        sections.append(Section("Detections and temperatures", drawings, text=text, is_gallery=True))
    return sections


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100.0 * value:.2f}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _missing(run: RunRecord) -> list[str]:
    """Say what is not shown, and why."""
    notes = []
    if not len(run.history["epoch"]):
        notes.append("There are no curves: the folder holds no recorded epoch.")
    if not len(run.trace["step"]):
        notes.append("The temperatures of instances are not shown: the folder holds no trace.")
    elif not bool((run.trace["reward"] == run.trace["reward"]).any()):
        notes.append("There are no instance rewards: only an agent with a calibrator other than uniform has them.")
    if run.summary is not None and run.metric != ACCURACY and run.detections is None:
        notes.append("Detections are not shown: the folder holds none.")
    if run.credit is None:
        notes.append(
            "Credit quality is not shown: measure it with rlkd credit and name the file with --credit, or put "
            "credit.json into the run's folder."
        )
    return notes


def _versions(run: RunRecord) -> list[Table]:
    versions: dict[str, Any] = (run.summary or {}).get("versions") or {}
    return [settings_table("Versions", versions)] if versions else []
