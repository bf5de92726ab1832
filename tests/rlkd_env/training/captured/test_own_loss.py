"""Teachers whose updates are captured are the same as others. On a CPU a replay does the work anew."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from same_weights import assert_same_weights
from torch import Tensor, nn

from rlkd_env.data import DATASETS, Splits
from rlkd_env.models.graphs import Recorder
from rlkd_env.training.batches_ahead import BatchesAhead
from rlkd_env.training.captured.own_loss import CapturedOwnLossUpdate
from rlkd_env.training.own_loss import OwnLossUpdate
from rlkd_env.training.teacher import TeacherRecipe, TeacherTraining

CUDA = pytest.param("cuda", marks=[pytest.mark.cuda])
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
EXACT = {"precision": "float32", "epochs": 2, "learning_rate": 0.01}


def splits_on(device: str) -> Splits:
    return DATASETS["digits"]().splits().to(torch.device(device))


def training_of(device: str, captured: bool, **settings: Any) -> TeacherTraining:
    training = TeacherTraining(splits_on(device), TeacherRecipe(**{**EXACT, **settings}))
    training.task.engine = replace(training.task.engine, captured=captured)
    training.update = training._create_update()
    if captured:
        training._draw_batch = BatchesAhead(training._stream).batch
    return training


@DEVICES
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "mlp16"},
        {"model": "digits_cnn", "optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3},
        {"model": "digits_cnn", "optimizer": "adamw", "clip_grad_norm": 1.0, "label_smoothing": 0.1},
        {"model": "mlp16", "mixup_alpha": 0.4, "ema_decay": 0.9, "learning_rate_warmup": 1},
    ],
    ids=str,
)
def test_a_captured_training_makes_the_same_teacher(device: str, settings: dict[str, Any]) -> None:
    plain, captured = (training_of(device, is_captured, **settings) for is_captured in (False, True))
    assert type(plain.update) is OwnLossUpdate
    assert isinstance(captured.update, CapturedOwnLossUpdate)
    losses = []
    for training in (plain, captured):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that it is not captured
            losses.append([training.run_epoch(), training.run_epoch()])
    assert captured.update.why_plain is None
    assert captured.update._captured
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    with plain.averaged(), captured.averaged():
        assert_same_weights(plain.network, captured.network, device)


@DEVICES
def test_a_captured_training_goes_on_in_the_middle(device: str) -> None:
    whole, first, second = (training_of(device, True, model="mlp16") for _ in range(3))
    whole.run_epoch()
    whole.run_epoch()
    first.run_epoch()
    second.run_epoch()  # has captured its own updates before it takes the other's state
    second.load_state_dict(first.state_dict())
    second.run_epoch()
    assert_same_weights(whole.network, second.network, device)


class Wilful(nn.Module):
    """Computes something else at every call, which no recording can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(images) * (1.0 + 9.0 * (self.calls % 2))


def test_a_network_whose_replay_is_wrong_is_noticed_and_trained_plainly() -> None:
    training = training_of("cpu", True, model="mlp16")
    torch.manual_seed(0)
    training.network = Wilful().train()
    training.update = training._create_update()
    with pytest.warns(UserWarning, match="something else"):
        training.run_epoch()
    assert "something else" in str(training.update.why_plain)
    moved = training.network.layers[1].num_batches_tracked
    assert int(moved) == training._stream.batches_per_epoch  # what was tried out has left no trace


def test_where_recording_fails_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, captured = (training_of("cpu", is_captured, model="mlp16") for is_captured in (False, True))

    def refuse(self: Recorder, work: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "record", refuse)
    with pytest.warns(UserWarning, match="capturing failed: operation not permitted"):
        captured.run_epoch()
    plain.run_epoch()
    assert_same_weights(plain.network, captured.network, "cpu")


def test_detectors_are_trained_plainly() -> None:
    source = DATASETS["digits_detection"]()
    recipe = TeacherRecipe.from_keywords(source.teacher_recipe, model=source.default_teacher)
    training = TeacherTraining(source.splits(), recipe, "detection")
    training.task.engine = replace(training.task.engine, captured=True)
    assert "detector's regions" in str(training._create_update().why_plain)
