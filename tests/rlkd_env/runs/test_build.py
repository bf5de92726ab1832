"""What is told where a run is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import write_npz
from torch import nn

from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig

PROBABILITIES = "the {} gives probabilities in place of logits"


def network(*end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4), *end)


@pytest.mark.parametrize(
    ("student", "teacher", "told"),
    [
        (lambda: network(), lambda: network(), []),
        (lambda: network(nn.LogSoftmax(dim=-1)), lambda: network(), []),
        (lambda: network(nn.Softmax(dim=-1)), lambda: network(), ["student"]),
        (lambda: network(), lambda: network(nn.Softmax(dim=-1)), ["teacher"]),
    ],
)
def test_probabilities_in_place_of_logits_are_told_of(
    student: Callable[[], nn.Module],
    teacher: Callable[[], nn.Module],
    told: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_npz(tmp_path / "a.npz")
    config = RunConfig.from_keywords(dataset="arrays", data_path=str(path), batch_size=8, device="cpu")
    build_run(config, teacher=teacher(), student=student)
    said = capsys.readouterr().err
    assert [role for role in ("student", "teacher") if PROBABILITIES.format(role) in said] == told


def test_what_a_method_has_to_say_about_the_classes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_npz(tmp_path / "a.npz", y_train=[0, 1] * 50, y_test=[0, 1] * 10)
    config = RunConfig.from_keywords(dataset="arrays", data_path=str(path), batch_size=8, device="cpu", method="dkd")
    build_run(config, teacher=nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 2)))
    assert "the second term of DKD" in capsys.readouterr().err
