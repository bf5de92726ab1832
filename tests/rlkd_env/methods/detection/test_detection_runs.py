"""The methods for detectors in runs of real detectors: what trains, what does not, snapshots, features of regions."""

from __future__ import annotations

import pytest
import torch
from small_networks import at_temperature

from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun

CHOICES = [("box", {}), ("ld", {}), ("fgd", {}), ("fpn", {}), ("fpn", {"normalized": True}), ("icd", {})]
FEATURES = ("student_performance", "objectness", "overlap")


def detection_run(method: str, options: dict[str, bool]) -> DistillationRun:
    """Scenes of digits, 4 a batch; a random teacher with wider maps than the student's."""
    config = RunConfig.from_keywords(
        dataset="digits_detection",
        teacher_images=60,
        train_images=20,
        validation_images=12,
        epochs=1,
        batch_size=4,
        learning_rate=0.01,
        device="cpu",
        reward="train_progress",
        method=method,
        method_options=options,
        features=FEATURES,
    )
    torch.manual_seed(1)
    bins = {"box_bins": 8} if "ld" in method.split("+") else {}
    teacher = create_model("fasterrcnn/cnn8", 10, (1, 64, 64), fpn_channels=32, **bins)
    run = build_run(
        config,
        teacher=teacher,
        student=lambda: create_model("fasterrcnn/cnn4", 10, (1, 64, 64), fpn_channels=16, **bins),
    )
    run.reset(0)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), CHOICES)
def test_every_trained_tensor_moves_and_the_teacher_does_not(method: str, options: dict[str, bool]) -> None:
    run = detection_run(method, options)
    trained = {**dict(run.method.named_parameters()), **dict(run.student.named_parameters())}
    before = {name: value.detach().clone() for name, value in trained.items()}
    teacher = {name: value.clone() for name, value in run.teacher.state_dict().items()}
    for _ in range(4):
        result = run.step(at_temperature(run.batch_size))
        assert not result.diverged
        assert result.state.shape == (run.batch_size, len(FEATURES))
        assert ((result.state >= 0) & (result.state <= 1)).all()
        assert (result.state[:, 2] == 1).any()  # real boxes are proposals too
    for name, value in trained.items():
        assert not torch.equal(value, before[name]), name
    for name, value in run.teacher.state_dict().items():
        assert torch.equal(value, teacher[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["icd", "kd+fgd+box", "kd+ld"])
def test_a_restored_run_goes_on_bit_for_bit(method: str) -> None:
    run = detection_run(method, {})
    for _ in range(2):
        run.step(at_temperature(run.batch_size))
    fork, state = run.fork(), run.state_dict()
    restored = detection_run(method, {})
    restored.load_state_dict(state)
    for _ in range(2):
        metrics = [each.step(at_temperature(run.batch_size)).metrics for each in (run, fork, restored)]
        for name, value in metrics[0].items():
            assert torch.equal(value, metrics[1][name]), name
            assert torch.equal(value, metrics[2][name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fpn"}, "'fpn' is not for classification"),
        ({"method": "icd"}, "'icd' is not for classification"),
        ({"features": ("progress", "overlap")}, "those of region proposals: choose a data set with boxes"),
    ],
)
def test_runs_that_classify_images_are_refused_what_is_for_detectors(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_run(RunConfig.from_keywords(device="cpu", **options))
