"""The teacher's accuracy, and teachers that know nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from experiments import distill
from experiments.cli import main
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, save_network

LEVELS = 4


def squares(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares whose brightness is their class."""
    labels = np.arange(count) % LEVELS
    return np.broadcast_to((60 * labels).astype(np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy(), labels


class ByBrightness(nn.Module):
    """Knows the classes of squares that are normalised as it expects; its weight is for the optimiser's sake."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.constants = mean, std
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = self.constants
        level = (images.mean((1, 2, 3)) * std + mean) * 255 / 60
        return -self.weight * (level.unsqueeze(1) - torch.arange(float(LEVELS))).square()


OPTIONS = {"epochs": 1, "batch_size": 16, "device": "cpu", "progress": False}


def test_a_teacher_with_constants_of_its_own_needs_no_wrapper(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = ByBrightness(0.2, 0.3)
    with pytest.raises(UsageError, match=r"hardly more than chance \(25.0%\).*teacher_normalization.*force goes on"):
        distill(teacher, "mlp6", squares(200), normalization=("0.9", "0.1"), **OPTIONS)
    normalised = {"normalization": ("0.9", "0.1"), "teacher_normalization": (0.2, 0.3)}
    summary = distill(teacher, "mlp6", squares(200), **normalised, **OPTIONS).summary
    assert "the teacher has 100.0% accuracy on the 20 validation images\n" in capsys.readouterr().err
    assert summary["teacher_val_accuracy"] == 1.0
    assert summary["normalization"] == {
        "student": {"mean": [0.9] * 3, "std": [0.1] * 3},
        "teacher": {"mean": [0.2] * 3, "std": [0.3] * 3},
    }
    assert summary["settings"]["teacher_normalization"] == ["0.2", "0.3"]


def test_a_teacher_that_knows_nothing_stops_the_command_unless_it_is_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = create_model("mlp16", 10, (1, 8, 8))
    save_network(tmp_path / "teacher.safetensors", network.state_dict(), "mlp16", 10, (1, 8, 8))
    out = ["--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu", "--no-progress"]
    command = ["distill", "--teacher", str(tmp_path / "teacher.safetensors"), *out]
    assert main(command) == 2
    assert "hardly more than chance (10.0%)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--force"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher_val_accuracy"] < 0.2
    assert "force" not in summary["settings"]


def test_constants_that_are_not_known_cannot_be_exchanged() -> None:
    images = [(4.0 * torch.randn(3, 4, 4), index % LEVELS) for index in range(60)]

    class Normalised(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return images[index]

    for option in ("normalization", "teacher_normalization"):
        with pytest.raises(UsageError, match="normalised already"):
            distill(ByBrightness(0.0, 1.0), "mlp6", Normalised(), workers=0, **{option: ("imagenet",)}, **OPTIONS)
