"""``rlkd distill --method simkd``: what is saved has the teacher's classifier, and every command uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments import distill
from experiments.cli import main
from rlkd_env.models import load_student
from rlkd_env.models.taps.features import Taps, classifier_of
from rlkd_env.models.taps.reused_classifier import FrozenLinear

QUICK = ("--no-progress", "--no-tensorboard", "--device", "cpu")
NETWORKS = ("--student", "cnn4", "--teacher-model", "cnn8", "--method", "simkd")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose agent has set the temperatures."""
    out = tmp_path_factory.mktemp("runs") / "simkd"
    options = ("--agent", "ppo", "--epochs", "8")
    assert main(["distill", *QUICK, *NETWORKS, *options, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_what_is_measured_later_is_what_was_measured_in_the_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--device", "cpu"]) == 0
    assert f"accuracy {summary['student_test_accuracy']:.2%} on 697 test images" in capsys.readouterr().out
    student = load_student(finished)
    assert isinstance(classifier_of(student), FrozenLinear)
    assert main(["export", str(finished)]) == 0
    exported = torch.export.load(finished / "export" / "student.pt2").module()
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(exported(images), student(images))
    assert main(["report", str(finished)]) == 0
    assert main(["validate", str(finished)]) == 0
    with_teacher = ("distill", *QUICK, "--teacher", str(finished), "--student", "cnn4", "--epochs", "2", "--dry-run")
    assert main([*with_teacher, "--method", "simkd"]) == 0  # a student with a reused classifier can teach in its turn


@pytest.mark.slow
def test_a_population_takes_turns_and_the_student_alone_is_the_plain_one(tmp_path: Path) -> None:
    options = ("--population", "2", "--student-alone", "--epochs", "2", "--out", str(tmp_path / "run"))
    assert main(["distill", *QUICK, *NETWORKS, *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0.0 < summary["student_alone_test_accuracy"] < 1.0
    assert isinstance(classifier_of(load_student(tmp_path / "run")), FrozenLinear)


class Own(nn.Module):
    """A network of somebody's own, which names its map."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 10)
        self.taps = Taps(("body",), (), "head")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean(dim=(2, 3)))


@pytest.mark.slow
def test_a_network_of_ones_own_is_changed_too() -> None:
    result = distill(
        teacher="auto", teacher_model="cnn8", student=Own, data="digits", method="simkd", epochs=2, device="cpu"
    )
    assert isinstance(result.student.head, FrozenLinear)
    assert result.student(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "simkd"), "does not read the mean of the teacher's last map"),
        (("--method", "simkd", "--teacher-model", "cnn8"), "the student has none"),
        ((*NETWORKS, "--student-options", "reused_classifier", "3"), "not to be given"),
        ((*NETWORKS, "--method-options", "factor", "33"), "a factor of 33 leaves none of 32 channels"),
        ((*NETWORKS, "--dataset", "digits_detection"), "method 'simkd' is not for detection"),
    ],
)
def test_what_does_not_fit_is_one_line(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *QUICK, *options, "--epochs", "2", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told
