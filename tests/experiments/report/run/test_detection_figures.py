"""What a detector finds, as the page of its run shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_detections import DETAILS, NO_BOX, NOTHING, REAL, found, tell_of_detection, write_example
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from experiments.cli import main
from experiments.report.run.detection_figures import draw_detections
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page
from experiments.report.style import Drawing
from experiments.session.detections import read_detections
from experiments.session.folder import DETECTIONS_FILE
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import read_tensors, write_tensors


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, as far as its report needs it."""
    epochs = [
        {
            "epoch": epoch,
            "step": 4 * epoch,
            "seconds": 2.0 * epoch,
            "validation_accuracy": 0.4 - 0.3 / epoch,
            "validation_loss": 1.0 / epoch,
            "training_accuracy": 0.95,
            "temperature_mean": 4.0,
            "temperature_quantiles": [1.0, 2.0, 4.0, 6.0, 8.0],
            "reward": 0.01,
        }
        for epoch in range(1, 9)
    ]
    summary = {
        "teacher_test_accuracy": 0.45,
        "student_test_accuracy": 0.35,
        "student_last_test_accuracy": 0.375,
        "student_epoch": 7,
        "data": {"test": 50},
    }
    settings = {"dataset": "digits_detection", "method": "kd", "agent": "ppo", "epochs": 8, "seed": 0}
    (tmp_path / "history.json").write_text(json.dumps({"version": 1, "epochs": epochs}))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    tell_of_detection(tmp_path)
    return tmp_path


def drawings(folder: Path) -> dict[str, Drawing]:
    record = read_detections(folder)
    assert record is not None
    return {drawing.name: drawing for drawing in draw_detections(record)}


def frames(drawing: Drawing) -> list[tuple[float, float, float, float]]:
    """Corners of the boxes in a figure, each of which is drawn twice: on a light line and in its colour."""
    patches = [patch for patch in drawing.figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [
        (one.get_x(), one.get_y(), one.get_x() + one.get_width(), one.get_y() + one.get_height())
        for one in patches[1::2]
    ]


def labels(drawing: Drawing) -> list[str]:
    return [text.get_text() for text in drawing.figure.axes[0].texts]


def test_the_page_speaks_of_ap_and_has_its_parts(run: Path) -> None:
    write_example(run)
    page = run_page(RunRecord.read(run))
    captions = " ".join(drawing.title + drawing.caption for drawing in page.drawings)
    assert "On 50 test images the student reaches 35.00 % AP, its teacher 45.00 %." in page.interpretation[0]
    assert "accuracy" not in (captions + page.interpretation[0] + "".join(tile.note for tile in page.tiles)).lower()
    assert "Validation AP goes from 10.0 %" in captions
    (axes,) = next(one for one in page.drawings if one.name == "accuracy_over_epochs").figure.axes
    assert axes.get_ylabel() == "AP, %"
    assert "training" not in [line.get_label() for line in axes.lines]
    table = next(section.table for section in page.sections if section.table is not None)
    assert list(table.columns) == ["", *(name.replace("_", " ") for name in DETAILS)]
    assert list(table.rows) == [
        ["teacher", "61.25", "30.00", "12.34", "–"],
        ["student, last epoch", "55.00", "30.00", "12.34", "–"],
    ]
    gallery = next(section for section in page.sections if section.is_gallery)
    assert len(gallery.shown) == 2 * 4
    assert "at least 0.5" in gallery.text
    assert gallery.text in page.html().replace("&#39;", "'")


def test_a_run_of_classifiers_has_no_such_section(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for name in ("metric", "teacher_test_details", "student_last_test_details"):
        del summary[name]
    (run / "summary.json").write_text(json.dumps(summary))
    page = run_page(RunRecord.read(run))
    assert "On 50 test images the student reaches 35.00 % accuracy" in page.interpretation[0]
    assert not any(section.is_gallery or section.table for section in page.sections)
    assert not any("Detections" in note for note in page.notes)


def test_detectors_without_images_are_told_as_such(run: Path) -> None:
    assert "Detections are not shown: the folder holds none." in run_page(RunRecord.read(run)).notes


def test_boxes_are_drawn_where_they_are_with_names_and_scores(run: Path) -> None:
    write_example(run)
    shown = drawings(run)
    assert frames(shown["detections_1_real"]) == [tuple(box) for box in REAL.tolist()]
    assert labels(shown["detections_2_real"]) == ["ring", "cross"]
    surest_first = [tuple(box) for box in (REAL + 1.0).flip(0).tolist()]
    assert frames(shown["detections_1_teacher"]) == surest_first
    assert labels(shown["detections_1_teacher"]) == ["cross 0.90", "ring 0.70"]
    assert labels(shown["detections_1_student"]) == ["ring 0.80"]  # the other's score is too low
    assert (
        "The student finds 1 object with a score of at least 0.5: ring 0.80." in shown["detections_1_student"].caption
    )
    colours = [patch.get_edgecolor() for patch in shown["detections_1_real"].figure.axes[0].patches[1::2]]
    assert colours[0] != colours[1]


def test_proposals_have_the_colour_of_their_temperature(run: Path) -> None:
    write_example(run)
    drawing = drawings(run)["detections_1_proposals"]
    (boxes,) = [one for one in drawing.figure.axes[0].collections if isinstance(one, PolyCollection)]
    assert len(boxes.get_paths()) == 6
    assert boxes.get_paths()[0].vertices.min(axis=0).tolist() == [4.0, 4.0]
    assert boxes.get_paths()[0].vertices.max(axis=0).tolist() == [20.0, 16.0]
    _, green, _, _ = np.asarray(boxes.get_edgecolor()).T  # from violet to yellow
    assert (np.diff(green) > 0).all()
    assert (np.diff(boxes.get_linewidth()) > 0).all()  # by objectness
    assert "All 6 proposals of image 1 after the run: temperatures from 1 to 6, median 3.5." in drawing.caption
    bar = drawing.figure.axes[1]
    assert bar.get_xlim() == pytest.approx((1.0, 6.0))
    assert bar.get_xlabel() == "temperature"


def test_the_likeliest_proposals_are_drawn_where_there_are_many(run: Path) -> None:
    many = (REAL.repeat(100, 1), torch.linspace(1.0, 2.0, 200), torch.linspace(0.0, 1.0, 200))
    write_example(run, num_images=1, proposals=many)
    caption = drawings(run)["detections_1_proposals"].caption
    assert "The 128 proposals of image 1 with the most objectness after the run: temperatures from 1.36 to 2" in caption


EMPTY: dict[str, dict[str, Any]] = {
    "nothing anywhere": {
        "real": (NO_BOX, NOTHING.long()),
        "teacher": found(NO_BOX, [], []),
        "student": found(NO_BOX, [], []),
        "proposals": (NO_BOX, NOTHING, NOTHING),
    },
    "one temperature": {"proposals": (REAL, torch.full((2,), 4.0), torch.ones(2))},
    "temperatures that are no numbers": {"proposals": (REAL, torch.tensor([torch.nan, 3.0]), torch.ones(2))},
    "no temperature": {"proposals": (REAL, torch.full((2,), torch.nan), torch.ones(2))},
    "one pixel, and far outside": {
        "real": (torch.tensor([[5.0, 5.0, 6.0, 6.0], [-90.0, -9.0, 990.0, 99.0]]), torch.tensor([1, 2]))
    },
    "a class without a name": {"student": found(REAL, [0.9, 0.8], [7, 2])},
}


@pytest.mark.parametrize("name", EMPTY)
def test_odd_images_are_shown(name: str, run: Path) -> None:
    write_example(run, num_images=1, **EMPTY[name])
    shown = drawings(run)
    assert len(shown) == 4
    for drawing in shown.values():
        assert drawing.svg().startswith("<svg")
        assert "nan" not in drawing.caption
    if name == "nothing anywhere":
        assert shown["detections_1_real"].caption == "No object in image 1."
        assert shown["detections_1_student"].caption == "The student finds nothing with a score of at least 0.5."
    if name in ("nothing anywhere", "no temperature"):
        assert shown["detections_1_proposals"].caption == "Image 1 has no proposal with a temperature."
    if name == "a class without a name":
        assert labels(shown["detections_1_student"]) == ["class 7 0.90", "cross 0.80"]


def test_a_student_that_is_never_sure_is_told(run: Path) -> None:
    write_example(run, num_images=1, student=found(REAL, [0.25, 0.125], [1, 2]))
    assert (
        "finds nothing with a score of at least 0.5; its highest is 0.25."
        in drawings(run)["detections_1_student"].caption
    )


def damaged(change: dict[str, torch.Tensor | None], **metadata: str) -> Any:
    def damage(path: Path) -> None:
        tensors, words = read_tensors(path)
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        write_tensors(path, changed, words | metadata)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"x"), "damaged or no safetensors file"),
        (damaged({}, detections='{"version": "7", "class_names": []}'), "of version 7, not 1"),
        (damaged({}, detections="["), "is damaged"),
        (damaged({"teacher.scores": None}), "is damaged: KeyError"),
        (damaged({"real.count": torch.tensor([1, 2])}), "is damaged"),
        (damaged({"real.count": torch.tensor([4])}), "is damaged"),
        (damaged({"student.corners": torch.zeros(4, 3)}), "is damaged"),
        (damaged({"images": torch.zeros(2, 3, 32, 48)}), "is damaged"),
    ],
)
def test_a_damaged_file_gets_one_line(damage: Any, message: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_example(run)
    damage(run / DETECTIONS_FILE)
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("details", ["high", [0.5], {"AP50": "high"}])
def test_details_of_another_form_are_refused(details: Any, run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"student_test_details": details}))
    with pytest.raises(UsageError, match=r"summary\.json is damaged"):
        RunRecord.read(run)
