"""``rlkd export``: the student elsewhere, and its card."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import distill
from experiments.cli import main
from experiments.commands import export as export_module
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, load_student


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    distill("auto", "mlp16", "digits", epochs=2, device="cpu", progress=False, folder=out, tensorboard=False)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def student_of(run: Path) -> torch.nn.Module:
    return load_student(run)


def test_a_student_is_read_from_its_run(run: Path) -> None:
    student = load_student(str(run))
    assert not student.training
    other = load_student(run / "student_last.safetensors")
    assert list(student.state_dict()) == list(other.state_dict())
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(UsageError, match="does not exist"):
        load_student(run.parent / "none")


def test_a_link_in_place_of_the_folder_is_not_followed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / "export").symlink_to(elsewhere)
    assert main(["export", str(run), "--format", "state-dict"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
    assert main(["export", str(run), "--format", "state-dict", "--out", str(run / "export")]) == 0


def test_warnings_of_what_torch_itself_calls_are_not_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, words, encode = export_module._FORMATS["state-dict"]

    def warning(*given: Any) -> Any:
        warnings.warn("this will be removed", FutureWarning, stacklevel=1)
        return encode(*given)

    monkeypatch.setitem(export_module._FORMATS, "state-dict", (name, words, warning))
    with warnings.catch_warnings(action="error"):
        assert main(["export", str(run), "--format", "state-dict"]) == 0


@pytest.mark.slow
def test_torch_export_holds_the_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run)]) == 0
    assert "student.pt2, whose logits differ by" in capsys.readouterr().out
    images = torch.rand(7, 1, 8, 8)
    found = torch.export.load(run / "export" / "student.pt2").module()(images)
    torch.testing.assert_close(found, student_of(run)(images))


def test_a_state_dict_is_the_weights_alone(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--format", "state-dict", "--out", str(tmp_path / "out")]) == 0
    network = create_model("mlp16", 10, (1, 8, 8)).eval()
    network.load_state_dict(torch.load(tmp_path / "out" / "student.pth", weights_only=True))
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(network(images), student_of(run)(images))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs onnx and onnxscript")
def test_onnx_is_checked_by_its_reference(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--format", "onnx"]) == 0
    assert "student.onnx, whose logits differ by" in capsys.readouterr().out
    assert (run / "export" / "student.onnx").stat().st_size > 1000


def test_without_onnx_a_line_says_how_to_have_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    assert main(["export", str(run), "--format", "onnx"]) == 2
    assert "--format onnx needs onnx and onnxscript: pip install onnx onnxscript" in capsys.readouterr().err


def test_the_card_tells_what_the_student_was_made_from(run: Path) -> None:
    assert main(["export", str(run), "--format", "state-dict", "--licence", "MIT"]) == 0
    card = (run / "export" / "MODEL_CARD.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    for told in (
        "# mlp16 on digits",
        "(N, 1, 8, 8)",
        "none: pixels as the data give them",
        "train 300",
        "temperatures from: `anneal`",
        "learning rate: `0.05`",
        f"| this student | {summary['student_val_accuracy']:.2%} | {summary['student_test_accuracy']:.2%} |",
        f"| teacher | {summary['teacher_val_accuracy']:.2%} | {summary['teacher_test_accuracy']:.2%} |",
        "MIT. The licences of the data",
        f"torch {summary['versions']['torch']}",
    ):
        assert told in card


def test_what_is_written_wrongly_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ("student.pth", "", lambda student, images: (b"", lambda images: student(images) + 1))
    monkeypatch.setitem(export_module._FORMATS, "state-dict", wrong)
    assert main(["export", str(run), "--format", "state-dict"]) == 2
    assert "what was written is another network: its logits differ by 1" in capsys.readouterr().err


def test_a_student_without_a_name_and_a_run_without_an_end_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    out = tmp_path / "run"
    distill("auto", network, "digits", epochs=1, device="cpu", progress=False, folder=out, tensorboard=False)
    assert main(["export", str(out)]) == 2
    assert "holds weights alone" in capsys.readouterr().err
    (out / "summary.json").unlink()
    assert main(["export", str(out)]) == 2
    assert "summary.json does not exist" in capsys.readouterr().err
