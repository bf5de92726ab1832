"""What the page of a run says and shows."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from made_reports import (
    CREDIT,
    change,
    shown,
    words_of,
)
from matplotlib.image import imread

from experiments.report.board.runs import describe_run
from experiments.report.run.figures import draw_accuracy_over_epochs
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page
from rlkd_env.utils.files import write_tensors

RUN_FIGURES = {
    "accuracy_over_epochs",
    "accuracy_over_time",
    "temperature_over_epochs",
    "temperature_in_single_epochs",
    "temperature_against_confidence",
    "temperature_against_margin",
    "temperature_by_class",
    "reward_against_temperature",
    "credit",
    "time",
}


def test_a_runs_page_tells_the_summarys_numbers_and_shows_every_figure(
    real_run: Path, reports: dict[str, Path]
) -> None:
    html = (reports["run"] / "report.html").read_text()
    summary, text = json.loads((real_run / "summary.json").read_text()), shown(html)
    for name in (
        "student_last_test_accuracy",
        "student_test_accuracy",
        "teacher_test_accuracy",
        "student_alone_test_accuracy",
    ):
        assert f"{100 * summary[name]:.2f} %" in text
    assert f"{summary['seconds']:.1f} s" in text
    assert f"On {summary['data']['test']} test images" in text
    for name, value in json.loads((real_run / "config.json").read_text()).items():
        assert name in text, value
    pictures = {path.stem: path for path in (reports["run"] / "report").iterdir()}
    assert pictures.keys() == RUN_FIGURES
    for path in pictures.values():
        assert np.ptp(imread(path)[..., :3]) > 0.5  # it is not blank
    assert html.count("<svg") == len(RUN_FIGURES)


def test_a_run_that_diverged_is_told_as_such(run: Path) -> None:
    change(run / "summary.json", diverged=True, student_test_accuracy=None, student_last_test_accuracy=None)
    rows = json.loads((run / "history.json").read_text())["epochs"]
    change(run / "history.json", epochs=[row | {"validation_accuracy": None, "validation_loss": None} for row in rows])
    trace = {name: torch.from_numpy(values) for name, values in RunRecord.read(run).trace.items()}
    half = len(trace["step"]) * 3 // 4
    for name in ("temperature", "student_margin"):
        trace[name][half:] = math.nan
    write_tensors(run / "trace.safetensors", trace)
    words = words_of(run)
    assert "This run diverged at update 80: " in words
    assert " nan" not in words.lower()


def test_a_run_at_one_temperature_is_shown(run: Path) -> None:
    change(run / "config.json", rule="fixed")
    trace = RunRecord.read(run).trace
    same = {name: torch.from_numpy(values) for name, values in trace.items()}
    same |= {"temperature": torch.full_like(same["step"], 4.0), "reward": torch.full_like(same["step"], math.nan)}
    write_tensors(run / "trace.safetensors", same)
    rows = json.loads((run / "history.json").read_text())["epochs"]
    change(run / "history.json", epochs=[row | {"temperature_quantiles": [4.0] * 5} for row in rows])
    words = words_of(run)
    assert "median temperature is 4 from the first epoch to the last one; all images of a batch get the same" in words
    assert "confidence, margin and class are not shown: they are alike in a batch" in words
    assert "There are no instance rewards" in words


def test_a_credit_measurement_is_taken_from_anywhere(run: Path, tmp_path: Path) -> None:
    (run / "credit.json").unlink()
    assert "Credit quality is not shown" in words_of(run)
    (tmp_path / "credit").mkdir()
    (tmp_path / "credit" / "credit.json").write_text(json.dumps(CREDIT))
    for option in (tmp_path / "credit", tmp_path / "credit" / "credit.json"):
        text = words_of(run, credit=option)
        assert "return_decomposition 0.06" in text
        assert "gradient 0.96" in text


def test_a_detection_run_that_broke_off_is_not_told_as_one_of_classifiers(run: Path) -> None:
    (run / "summary.json").unlink()
    change(run / "history.json", metric="AP")
    record = RunRecord.read(run)
    (drawing,) = (one for one in run_page(record).drawings if one.name == "accuracy_over_epochs")
    axes = drawing.figure.axes[0]
    assert axes.get_ylabel() == "AP, %"
    assert "training" not in [line.get_label() for line in axes.lines]
    assert "Validation AP goes from" in drawing.caption


def test_a_run_whose_epochs_are_all_recorded_does_not_end_with_the_last_of_them(run: Path) -> None:
    (run / "summary.json").unlink()
    assert "all 20 epochs are recorded, but nothing has been measured on test images" in words_of(run)
    change(run / "config.json", epochs=40)
    assert "This run has not finished: 20 of 40 epochs are recorded." in words_of(run)


def test_a_student_without_a_teacher_has_no_temperatures(real_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    shutil.copytree(real_run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "method": "cross_entropy"}))
    page = run_page(RunRecord.read(folder))
    assert "a student without a teacher" in page.title
    assert "Which temperatures" not in [section.title for section in page.sections]
    assert "no temperature counts" in page.interpretation[-1]
    assert set(describe_run("alone", folder)["curves"]["temperature_mean"]) == {None}


def test_the_best_epoch_among_equals_is_the_one_that_is_kept(real_run: Path, tmp_path: Path) -> None:
    run = RunRecord.read(shutil.copytree(real_run, tmp_path / "run"))
    run.history["validation_accuracy"][:] = 0.5
    run.history["validation_loss"][:] = 1.0
    run.history["validation_loss"][6] = 0.9
    drawing = draw_accuracy_over_epochs(run)
    assert drawing is not None
    assert "its best is 50.0 % after epoch 7" in drawing.caption
