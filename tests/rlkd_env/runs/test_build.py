"""What is told where a run is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_files import write_npz
from torch import nn

from agents.rules.simple import FixedTemperature
from rlkd_env.errors import UsageError
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.parallel.stackable import why_not_stacked
from rlkd_env.tasks import create_task
from rlkd_env.utils.files import tensors_hash

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


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (nn.Linear(4, 3), "the student knows 3 classes, but the data has 4"),
        (nn.Unflatten(1, (2, 2)), r"the student gives \(2, 2, 2\) for 2 images, not their logits \(2, 4\)"),
    ],
)
def test_what_gives_no_logits_of_the_classes_is_refused(end: nn.Module, message: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    config = RunConfig.from_keywords(dataset="arrays", data_path=str(path), batch_size=8, device="cpu")
    with pytest.raises(UsageError, match=message):
        build_run(config, teacher=network(), student=lambda: network(end))


def test_batches_of_one_are_refused_for_batch_norms_of_single_numbers(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    config = RunConfig.from_keywords(dataset="arrays", data_path=str(path), batch_size=1, device="cpu")
    build_run(config, teacher=network(), student=network)
    with pytest.raises(UsageError, match="--batch-size of 2 or more"):
        build_run(config, teacher=network(), student=lambda: network(nn.BatchNorm1d(4)))


def test_a_run_takes_networks_that_return_more_than_logits(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    keywords = {"dataset": "arrays", "data_path": str(path), "batch_size": 8, "device": "cpu", "auxiliary_weight": 0.5}
    run = build_run(RunConfig.from_keywords(keywords), teacher=Tupled(), student=Tupled)
    run.reset(0)
    auxiliary = run.outputs.auxiliary_loss
    assert auxiliary is not None
    torch.testing.assert_close(auxiliary, 0.5 * run.outputs.student_cross_entropy)
    assert "auxiliary logits" in str(why_not_stacked(run))


class Tupled(nn.Sequential):
    """In training it returns its logits and auxiliary ones, which are the same here."""

    def __init__(self) -> None:
        super().__init__(*network())

    def forward(self, images: torch.Tensor) -> object:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_smoothed_as_torch_does(smoothing: float, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    keywords = {"dataset": "arrays", "data_path": str(path), "batch_size": 8, "device": "cpu"}
    run = build_run(RunConfig.from_keywords(keywords, label_smoothing=smoothing), teacher=network(), student=network)
    run.reset(0)
    logits, labels = run.outputs.student_logits, run.outputs.labels
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(run.outputs.task_loss, expected)
    plain = nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(run.outputs.student_cross_entropy, plain.detach())
    batch = run.batch
    loss = run.task.training_loss(run.student, batch)
    torch.testing.assert_close(loss, expected.mean())


def test_options_of_training_say_where_they_do_not_go(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    keywords = {"dataset": "arrays", "data_path": str(path), "batch_size": 8, "device": "cpu", "clip_grad_norm": 1.0}
    run = build_run(RunConfig.from_keywords(keywords), teacher=network(), student=network)
    assert why_not_stacked(run) == "the norm of the gradient is each student's own"
    with pytest.raises(UsageError, match="are for classification: leave them out for detectors"):
        create_task("detection", label_smoothing=0.1)


@pytest.mark.slow
def test_a_run_with_all_options_of_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    options = {"optimizer": "adamw", "clip_grad_norm": 0.5, "label_smoothing": 0.1, "learning_rate_warmup": 2}
    options |= {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "ema_decay": 0.9, "class_balanced": True}
    options |= {"auto_augment": "trivialaugment", "random_erase": 0.5, "augmentation": "crop_flip"}
    data = {"dataset": "arrays", "data_path": str(path), "batch_size": 8, "device": "cpu", "epochs": 5}
    run = build_run(
        RunConfig.from_keywords(data | options | {"learning_rate": 0.01}), teacher=network(), student=network
    )
    run.reset(0)
    run.advance(FixedTemperature(4.0), 7)
    fork = run.fork()
    for one in (run, fork):
        one.advance(FixedTemperature(4.0), 30)
    assert tensors_hash(run.student.state_dict()) == tensors_hash(fork.student.state_dict())
    assert tensors_hash(run.weights()) == tensors_hash(fork.weights()) != tensors_hash(run.student.state_dict())
