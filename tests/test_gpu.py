"""Whole runs on a GPU: agents, half-precision numbers, detection, stacked students, and that steps wait for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.rules.schedules import Anneal
from agents.sb3.families import AGENTS
from experiments.cli import main
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun

pytestmark = pytest.mark.cuda
MakeRun = Callable[..., DistillationRun]


def distilled(folder: Path, *options: str) -> dict[str, Any]:
    """Distil on Digits by the command line and return the summary."""
    assert (
        main(["distill", "--out", str(folder), "--device", "cuda", "--no-progress", "--no-tensorboard", *options]) == 0
    )
    return dict(json.loads((folder / "summary.json").read_text()))


@pytest.mark.parametrize("agent", [name for name, family in AGENTS.items() if family.why_not_within is None])
def test_every_agent_learns_for_a_few_updates(agent: str, tmp_path: Path) -> None:
    summary = distilled(tmp_path, "--agent", agent, "--epochs", "6", "--warmup-epochs", "1", "--student", "digits_cnn")
    assert summary["steps"] == 24
    assert summary["student_test_accuracy"] > 0.15


@pytest.mark.parametrize("calibrator", ["return_decomposition", "last_layer", "gradient"])
def test_every_credit_is_computed(calibrator: str, tmp_path: Path) -> None:
    summary = distilled(tmp_path, "--agent", "ppo", "--calibrator", calibrator, "--epochs", "6", "--warmup-epochs", "1")
    assert summary["student_test_accuracy"] > 0.15


def test_captured_and_plain_runs_reach_the_same_accuracy_in_bfloat16(tmp_path: Path) -> None:
    options = ("--student", "digits_cnn", "--epochs", "20", "--precision", "bfloat16")
    ways = {"captured": (), "plain": ("--no-capture",)}
    summaries = {name: distilled(tmp_path / name, *options, *way) for name, way in ways.items()}
    assert summaries["captured"]["why_not_captured"] is None
    assert "switched off" in summaries["plain"]["why_not_captured"]
    found = [summary["student_test_accuracy"] for summary in summaries.values()]
    assert abs(found[0] - found[1]) < 0.02
    assert found[0] > 0.7


def test_captured_and_plain_teachers_reach_the_same_accuracy(tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--model", "digits_cnn", "--epochs", "6", "--device", "cuda", "--no-progress"]
    found = []
    for name, way in {"captured": [], "plain": ["--no-capture"]}.items():
        assert main(["teacher", "--out", str(tmp_path / name), *options, *way]) == 0
        found.append(json.loads((tmp_path / name / "teacher.json").read_text())["test_accuracy"])
    assert abs(found[0] - found[1]) < 0.02
    assert found[0] > 0.7


def test_detectors_are_distilled_plainly(tmp_path: Path) -> None:
    small = ["--dataset", "digits_detection", "--image-size", "32", "--train-images", "8", "--teacher-images", "20"]
    small += ["--validation-images", "4", "--student", "fasterrcnn/cnn4", "--batch-size", "4", "--proposals", "6"]
    assert distilled(tmp_path, *small, "--epochs", "2")["steps"] == 4


def test_steps_wait_for_nothing(make_run: MakeRun) -> None:
    run = make_run(device="cuda", student="digits_cnn", epochs=40)
    run.reset(0)
    run.advance(Anneal(), steps=8)
    temperature = Temperature.shared(torch.full((64,), 4.0, device="cuda"))
    run.advance(Anneal(), steps=run.steps_per_epoch - run.step_count % run.steps_per_epoch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.advance(Anneal(), steps=2)
        run.step(temperature, is_rewarded=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("student", ["digits_cnn", "cnn4", "resnet8"])
def test_stacked_students_are_single_ones(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, student: str) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose rounding errors grow with every update
    run = make_run(device="cuda", student=student, precision="float32")
    runs = create_parallel_runs(run, 3, "stacked")
    runs.reset([0, 0, 0])
    runs.advance(Anneal())
    single = run.sibling()
    single.reset(0)
    single.advance(Anneal())
    for name, value in single.student.state_dict().items():
        for stacked in runs.students():
            torch.testing.assert_close(stacked.state_dict()[name], value, rtol=0.02, atol=5e-3)
