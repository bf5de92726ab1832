"""The command line on detectors: teacher, student, resuming, validation, comparison, report and bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.session.checkpoints import SafePoints
from experiments.session.detections import read_detections

DATA = ("--dataset", "digits_detection", "--image-size", "32", "--train-images", "8", "--teacher-images", "20")
SMALL = (*DATA, "--validation-images", "4", "--batch-size", "4", "--proposals", "8", "--device", "cpu", "--no-progress")
STUDENT = (
    *("--student", "fasterrcnn/cnn4", "--method-options", "task_weight", "1", "kd_weight", "1"),
    *("--epochs", "3", "--learning-rate", "0.01", "--reward", "train_progress", "--warmup-epochs", "1", "--no-explore"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "cnn8"
    given = ["teacher", *SMALL, "--model", "fasterrcnn/cnn8", "--epochs", "2", "--out", str(folder)]
    assert main(given) == 0
    return folder


def distill(teacher: Path, folder: Path, *options: str) -> list[str]:
    return ["distill", *SMALL, *STUDENT, "--teacher", str(teacher), "--out", str(folder), "--force", *options]


@pytest.mark.slow
def test_a_teachers_card_tells_average_precision(teacher: Path) -> None:
    card = json.loads((teacher / "teacher.json").read_text())
    assert card["metric"] == "AP"
    assert {"AP", "AP50", "AP75"} <= set(card["test_details"])
    assert card["test_details"]["AP"] == pytest.approx(card["test_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("chooser", [("--agent", "ppo", "--calibrator", "return_decomposition"), ("--rule", "lskd")])
def test_a_stopped_detector_goes_on_bit_for_bit(
    chooser: tuple[str, ...], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(distill(teacher, tmp_path / "straight", *chooser)) == 0
    reach = SafePoints.reach

    def stop(safe_points: SafePoints) -> None:
        if safe_points._parts["run"].epoch >= 1:
            safe_points.stop.ask()
        reach(safe_points)

    with monkeypatch.context() as patched:
        patched.setattr(SafePoints, "reach", stop)
        assert main(distill(teacher, tmp_path / "stopped", *chooser)) == 130
    assert main(["distill", "--out", str(tmp_path / "stopped"), "--resume", "--no-progress"]) == 0
    for name in sorted(path.name for path in (tmp_path / "straight").glob("*.safetensors")):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@pytest.mark.slow
def test_a_run_shows_what_it_finds_and_can_be_made_again(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(distill(teacher, folder, "--student-alone")) == 0
    told = capsys.readouterr().out
    assert "AP" in told
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metric"] == "AP"
    assert {"AP", "AP50", "AP75"} <= set(summary["student_last_test_details"])
    assert summary["student_last_test_details"]["AP"] == pytest.approx(summary["student_last_test_accuracy"])
    record = read_detections(folder)
    assert record is not None
    assert record.class_names == tuple("0123456789")
    assert len(record.images) == 4
    for image in record.images:
        assert image.proposals.corners.shape == (8, 4)
        assert (image.proposals.temperatures > 0).all()
        assert image.pixels.float().std() > 0
    assert main(["validate", str(folder / "summary.json")]) == 0
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "AP50" in page


@pytest.mark.slow
def test_a_comparison_of_detectors(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "comparison"
    arms = (
        "--rules",
        "fixed",
        "--fixed-temperatures",
        "1",
        "--student-alone",
        "--seeds",
        "2",
        "--executor",
        "sequence",
    )
    given = [
        "compare",
        *SMALL,
        *STUDENT,
        "--epochs",
        "1",
        "--teacher",
        str(teacher),
        *arms,
        "--out",
        str(folder),
        "--force",
    ]
    assert main(given) == 0
    assert "AP" in capsys.readouterr().out
    rows = (folder / "comparison.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2


@pytest.mark.slow
def test_the_bench_of_detectors(teacher: Path, tmp_path: Path) -> None:
    given = ["bench", *SMALL[:-1], *STUDENT[:-1], "--teacher", str(teacher), "--rounds", "1", "--steps", "2"]
    assert main([*given, "--no-memory", "--arms", "fixed", "ppo_learning", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "bench.json").read_text())
    assert set(told["arms"]) == {"plain_kd", "fixed", "ppo_learning"}
    assert "networks_and_loss" in told["parts_ms"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "crd"), "method 'crd' is not for detection"),
        (("--agent", "ppo", "--calibrator", "last_layer"), "uniform and return_decomposition"),
        (("--student", "cnn4"), "is no detector"),
        (("--student", "fasterrcnn/resnet9"), "resnet8"),
    ],
)
def test_what_does_not_go_is_told_in_a_line(
    options: tuple[str, ...], message: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill(teacher, tmp_path / "run", *options)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
