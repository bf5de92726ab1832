"""The summary of a run: what its students reach on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from experiments.cli import parse
from experiments.config import DistillConfig
from experiments.session.prepare import prepare
from experiments.session.summary import complete
from rlkd_env.data import ImageSet
from rlkd_env.utils.files import tensors_hash


@pytest.mark.parametrize("kept", ["last", "best"])
def test_every_student_is_measured_once_on_the_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_teacher: nn.Module, kept: str
) -> None:
    options = ["--epochs", "6", "--out", str(tmp_path / "run"), "--keep-epoch", kept, "--no-progress"]
    config = parse(["distill", "--device", "cpu", "--rule", "fixed", "--learning-rate", "0.5", *options])
    assert isinstance(config, DistillConfig)
    session = prepare(config)
    test = session.test_set()
    assert test is not None
    measured, evaluate = list[str](), session.run.task.evaluate

    def counted(network: nn.Module, images: ImageSet) -> Any:
        if len(images) == len(test):
            measured.append(tensors_hash(network.state_dict()))
        return evaluate(network, images)

    monkeypatch.setattr(session.run.task, "evaluate", counted)
    summary = complete(session)
    students = {summary[f"student_{name}sha256"] for name in ("", "last_", "best_")}
    assert len(students) == (1 if summary["student_best_epoch"] == 6 else 2)
    of_students = [found for found in measured if found != tensors_hash(session.run.teacher.state_dict())]
    assert (set(of_students), len(of_students)) == (students, len(students))
    assert summary["student_test_accuracy"] == summary[f"student_{kept}_test_accuracy"]
    assert summary[f"student_{'last' if kept == 'best' else 'best'}_test_accuracy"] > 0.1
