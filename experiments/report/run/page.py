"""The report of a single run as a page."""

from __future__ import annotations

import math
from typing import Any

from experiments.report.formatting import capitalized
from experiments.report.page import Page, Section, Table, Tile, settings_table
from experiments.report.run import figures, instance_figures
from experiments.report.run.detection_figures import LEAST_SCORE, draw_detections
from experiments.report.run.expected import expected_of
from experiments.report.run.instance_figures import describe_temperatures, differs_in_batches
from experiments.report.run.loading import RunRecord
from experiments.report.run.population import population_sections
from experiments.session.provenance import ACCURACY
from experiments.session.telling.verdict import verdict

_DEFAULT = "annealing (the default)"


def run_page(run: RunRecord) -> Page:
    """Return the report of a run from the content of its folder."""
    config = run.config
    sections = [
        *population_sections(run),
        Section(
            "How well, and when",
            [figures.draw_accuracy_over_epochs(run), figures.draw_accuracy_over_time(run)],
            _expected_table(run),
        ),
        *_detection_sections(run),
        *(_temperature_sections(run) if run.has_teacher else []),
        Section("What it cost", [figures.draw_time(run)]),
    ]
    return Page(
        kind="run",
        title=f"{config.get('dataset')}, {_how(run)}{_of_how_many(run)}",
        subtitle=_subtitle(run),
        warnings=_warnings(run),
        tiles=_tiles(run),
        interpretation=_interpretation(run),
        sections=sections,
        notes=_missing(run) if run.has_teacher else [],
        tables=[_accuracy_table(run), settings_table("Settings", config), *_versions(run)],
    )


def _temperature_sections(run: RunRecord) -> list[Section]:
    temperatures = [
        figures.draw_temperature_over_epochs(run),
        instance_figures.draw_single_epochs(run),
        instance_figures.draw_temperature_against_confidence(run),
        instance_figures.draw_temperature_against_margin(run),
        instance_figures.draw_temperature_by_class(run),
    ]
    rewards = [instance_figures.draw_reward_against_temperature(run), figures.draw_credit(run)]
    return [Section("Which temperatures", temperatures), Section("What they earned", rewards)]


def _how(run: RunRecord) -> str:
    if not run.has_teacher:
        return "a student without a teacher"
    return f"{run.config.get('method')}, temperatures from {run.chooser}"


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
        planned = run.config.get("epochs")
        if epochs and epochs == planned:
            known = f"all {epochs} epochs are recorded, but nothing has been measured on test images"
        else:
            known = f"{epochs} of {planned} epochs are recorded" if epochs else "nothing has been recorded yet"
        return [f"This run has not finished: {known}. Go on with: rlkd distill --resume --out {run.folder}"]
    if run.summary.get("diverged"):
        return [
            f"This run diverged at update {run.number('steps') or 0:.0f}: its loss was no longer finite. The "
            "results are those of the last good student."
        ]
    return []


def _tiles(run: RunRecord) -> list[Tile]:
    candidates = [
        ("student", run.percent("student_test_accuracy"), f"test {run.metric} of what is kept: {run.kept}"),
        ("student alone", run.percent("student_alone_test_accuracy"), f"test {run.metric}, without a teacher"),
        ("teacher", run.percent("teacher_test_accuracy"), f"test {run.metric}"),
    ]
    if not any(value is not None for _, value, _ in candidates):
        candidates = [
            ("student", run.percent("student_val_accuracy"), f"validation {run.metric} of what is kept: {run.kept}"),
            ("teacher", run.percent("teacher_val_accuracy"), f"validation {run.metric}"),
        ]
    tiles = [Tile(name, f"{value:.2f} %", note) for name, value, note in candidates if value is not None]
    if (expected := expected_of(run.config)) is not None and (usual := expected.arms.get(_DEFAULT)) is not None:
        bounds = f"{usual[1]:.2f} to {usual[2]:.2f} over {expected.seeds} seeds"
        tiles.append(Tile("usual here", f"{usual[0]:.2f} %", f"annealing on this task, {bounds}"))
    seconds = run.number("seconds")
    if seconds is not None:
        tiles.append(Tile("cost", f"{seconds:.1f} s", _step_cost(run)))
    return tiles


def _step_cost(run: RunRecord) -> str:
    fixed, acting = run.number("fixed_step_ms"), run.number("step_ms")
    if fixed and acting:
        return f"{acting:.1f} ms an update with {run.chooser}, {fixed:.1f} ms in the warm-up"
    return f"{acting:.1f} ms an update" if acting else ""


def _interpretation(run: RunRecord) -> list[str]:
    """Say whether it helped and which temperatures there were, and what a single run cannot show."""
    told = verdict(run.summary or {})
    if not run.has_teacher:
        return [*told, "The student has learned from the labels alone: no temperature counts."]
    if told and run.percent("student_alone_test_accuracy") is None:
        told.append("Whether distillation helped is not known: --student-alone trains the student without it, too.")
    temperatures = describe_temperatures(run)
    if told:
        told.append(
            "This is a single run: finding out whether its temperatures are better than others takes several seeds "
            "(rlkd compare)."
        )
    return [" ".join(told), temperatures]


def _expected_table(run: RunRecord) -> Table | None:
    """Return what the committed comparison found on the run's task, beside the run's own result."""
    expected, own = expected_of(run.config), run.percent("student_test_accuracy")
    if expected is None:
        return None
    rows = [[name, f"{mean:.2f}", f"{low:.2f} to {high:.2f}"] for name, (mean, low, high) in expected.arms.items()]
    if own is not None:
        rows.append(["this run", f"{own:.2f}", "a single seed"])
    return Table(
        "What this task usually gives",
        [f"what {expected.seeds} seeds gave on this task", f"test {run.metric}, %", "95 % interval of the mean"],
        rows,
        note="From the project's comparison of all ways to set temperatures. A single run scatters more widely than "
        "the mean's interval.",
    )


def _accuracy_table(run: RunRecord) -> Table | None:
    """Return all accuracies, or APs, as a table, for readers who cannot see the marks in the figures."""
    best = run.number("student_best_epoch")
    keys = {
        "teacher": ("teacher_val_accuracy", "teacher_test_accuracy"),
        "student alone": ("student_alone_val_accuracy", "student_alone_test_accuracy"),
        f"student, best epoch on validation{f' ({best:.0f})' if best else ''}": (
            "student_best_val_accuracy",
            "student_best_test_accuracy",
        ),
        "student, last epoch": ("student_last_val_accuracy", "student_last_test_accuracy"),
        f"student, kept: {run.kept}": ("student_val_accuracy", "student_test_accuracy"),
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
    elif not differs_in_batches(run):
        notes.append("Temperatures against confidence, margin and class are not shown: they are alike in a batch.")
    if len(run.trace["step"]) and not bool((run.trace["reward"] == run.trace["reward"]).any()):
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
