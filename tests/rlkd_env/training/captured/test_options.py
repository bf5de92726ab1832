"""Captured updates go with every option of data and training: what changes from step to step is an input of them.

On a CPU, where nothing can be captured, a replay does the work anew on the memory that was recorded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_pictures_and_teachers

from agents.rules.create import create_rule
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.captured.update import STEPS_TO_CAPTURE, CapturedUpdate

CUDA = pytest.param("cuda", marks=[pytest.mark.cuda])
OPTIONS: list[dict[str, Any]] = [
    {"augmentation": "crop_flip"},
    {"augmentation": "crop_flip", "views": 2},
    {"augmentation": "crop_flip", "views": 2, "teacher_cache_mib": 0},
    {"augmentation": "flip", "views": 3, "method": "at"},
    {"augmentation": "flip", "views": 2, "method": "crld"},
    {"augmentation": "none", "method": "mlkd"},
    {"augmentation": "flip", "auto_augment": "trivialaugment", "views": 2},
    {"random_erase": 0.5},
    {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "views": 2},
    {"mixup_alpha": 0.4, "method": "crld"},
    {"class_balanced": True, "views": 2},
    {"curriculum_phases": 3},
    {"ema_decay": 0.9},
    {"clip_grad_norm": 0.5, "label_smoothing": 0.1},
    {"optimizer": "dot"},
    {"optimizer": "adam", "schedule": "constant"},
    {"learning_rate_warmup": 1, "schedule": "step"},
    {"equal_gradients": True, "temperatures": "separate"},
    {"teacher": "two", "teacher_weights": "entropy", "views": 2},
    {"method": "dkd", "method_options": {"warmup_epochs": 3}},
    {"method": "reviewkd", "method_options": {"warmup_epochs": 3}},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures_and_teachers(tmp_path_factory.mktemp("files"))


def run_of(files: Path, captured: bool, device: str, options: dict[str, Any]) -> DistillationRun:
    teachers = [str(files / f"teacher{number}.safetensors") for number in range(2)]
    settings = {"dataset": "arrays", "data_path": str(files / "pictures.npz"), "student": "cnn4", "batch_size": 16}
    settings |= {"epochs": 4, "precision": "float32", "device": device, "learning_rate": 0.02, "capture": captured}
    settings |= options
    settings["teacher"] = teachers if options.get("teacher") == "two" else teachers[0]
    run = build_run(RunConfig.from_keywords(**settings))
    run.task.engine = replace(run.task.engine, captured=captured)
    return run


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options)))
def test_an_option_trains_the_same_student_captured(files: Path, options: dict[str, Any], device: str) -> None:
    plain, captured = (run_of(files, is_captured, device, options) for is_captured in (False, True))
    rule = create_rule("anneal")
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-3}
    for run in (plain, captured):
        run.reset(3)
    assert plain.total_steps > 2 * STEPS_TO_CAPTURE
    while not plain.finished:
        for name in ("teacher_logits", "labels", "indices", "student_logits"):
            torch.testing.assert_close(getattr(captured.outputs, name), getattr(plain.outputs, name), **tolerance)
        for run in (plain, captured):
            run.step(rule(run.outputs))
    assert isinstance(captured.update, CapturedUpdate)
    assert captured.update.why_plain is None
    for one, other in zip(plain.student.state_dict().values(), captured.student.state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, **tolerance)
