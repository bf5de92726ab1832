"""The commands of the guides to one's own data and to the options of training, on tiny files."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from coco_files import write_parts
from image_files import pixels, write_npz
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from experiments.cli import main
from rlkd_env.models import create_model

GUIDES = {
    name: (Path(__file__).parent.parent / "docs" / "guides" / f"{name}.md").read_text()
    for name in ("own_data", "training")
}
SITUATIONS = {
    title: re.findall(r"^rlkd .*$", section, flags=re.MULTILINE)
    for guide in GUIDES.values()
    for title, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", guide, flags=re.DOTALL | re.MULTILINE)
    if "\nrlkd " in section
}
"""The commands of every situation by its title."""
TINY = ["--epochs", "3", "--batch-size", "8", "--device", "cpu", "--no-progress", "--workers", "0"]
NETWORKS = {"resnet56": "resnet8", "resnet20": "resnet8", "vgg13": "cnn4"}
"""Smaller networks in place of those of the guide."""


@dataclass
class ModelOutput:
    """As HuggingFace's networks return it."""

    logits: Tensor


class PhotographsViT(nn.Module):
    """Stands for a network of HuggingFace."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, num_classes)

    def forward(self, pixel_values: Tensor) -> ModelOutput:
        return ModelOutput(self.classifier(pixel_values.mean((2, 3))))


def photographs(split: str, augment: bool) -> TensorDataset:
    """Stands for the user's Dataset."""
    size = {"train": 60, "validation": 12, "test": 12}[split]
    images = torch.from_numpy(pixels(size, 16).transpose(0, 3, 1, 2).copy())
    return TensorDataset(images.flip(-1) if augment else images, torch.arange(size) % 3)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the guide names."""
    monkeypatch.chdir(tmp_path)
    for module in ("my_package.data", "my_package.networks"):
        monkeypatch.setitem(sys.modules, module, sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "photographs_vit", PhotographsViT, raising=False)
    generator = np.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "photographs" / ("cats", "dogs", "emus")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        height, width = generator.integers(70, 120, 2)
        picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.{('jpg', 'png')[number % 2]}")
    write_npz(tmp_path / "mine.npz", x_train=pixels(100, 16), x_test=pixels(20, 16, seed=1))
    write_parts(tmp_path / "cells", train=24, val=8, test=8)
    write_yolo(tmp_path / "yolo_cells")
    (tmp_path / "photographs-vit").mkdir()
    save_file(PhotographsViT(3).state_dict(), tmp_path / "photographs-vit" / "model.safetensors")
    weights = create_model("resnet8", 4, (3, 16, 16)).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "resnet8.pth")
    return tmp_path


def write_yolo(root: Path) -> None:
    for number in range(24):
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(1, 40, seed=number)[0]).save(root / "images" / f"{number}.png")
        (root / "labels" / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.3\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": ["red", "white"]}))


def test_the_guide_has_every_situation() -> None:
    assert len(SITUATIONS) == 11
    assert sum(map(len, SITUATIONS.values())) == 22


@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.filterwarnings("ignore:images that are not RGB")
def test_the_commands_of_a_situation_run(situation: str, files: Path) -> None:
    if "timm" in situation and importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    for command in SITUATIONS[situation]:
        for name, small in NETWORKS.items():
            command = command.replace(name, small)
        _, kind, *words = shlex.split(command)
        further = ["--force", "--probe-size", "8", "--no-tensorboard"] if kind == "distill" else []
        assert main([kind, *words, *TINY, *further]) == 0, command
    summaries = [*(files / "runs").glob("*/summary.json")]
    assert len(summaries) == sum(" distill " in command for command in SITUATIONS[situation])
    assert {json.loads(summary.read_text())["epochs"] for summary in summaries} == {3}
