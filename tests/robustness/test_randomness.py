"""The same seed gives the same student, whatever its network draws its random numbers from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from experiments import distill
from experiments.cli import main

NOISE: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "functional dropout": lambda values, training: F.dropout(values, 0.3, training),
    "functional stochastic depth": lambda values, training: stochastic_depth(values, 0.3, "row", training),
    "drawn in training": lambda values, training: values + torch.rand_like(values) if training else values,
    "drawn in every forward": lambda values, training: values + 0.1 * torch.rand_like(values),
    "python": lambda values, training: values * (1.0 + random.random()) if training else values,
    "numpy": lambda values, training: values * (1.0 + float(np.random.rand())) if training else values,  # noqa: NPY002
}


class Noisy(nn.Module):
    """A small network with noise between its layers."""

    def __init__(self, noise: str) -> None:
        super().__init__()
        self.first, self.second, self.noise = nn.Linear(64, 8), nn.Linear(8, 10), NOISE[noise]

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.noise(self.first(images.flatten(1)).relu(), self.training))


@pytest.mark.parametrize("noise", NOISE)
def test_the_same_seed_gives_the_same_student(noise: str) -> None:
    """Between the runs the global generators go on, as they do from process to process."""
    results = []
    for _ in range(2):
        student = lambda: Noisy(noise)  # noqa: E731
        results.append(distill("auto", student, "digits", "fixed", epochs=3, progress=False, device="cpu"))
        torch.rand(7)
        random.random()
        np.random.rand()  # noqa: NPY002
    first, second = (result.summary for result in results)
    assert first["student_last_sha256"] == second["student_last_sha256"]
    assert first["student_last_val_accuracy"] == second["student_last_val_accuracy"]


def test_a_run_with_such_a_network_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import torch\nfrom torch import nn\n"
    code += "class Noisy(nn.Sequential):\n    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    code += "    def forward(self, images): return super().forward(images + torch.rand_like(images))\n"
    Path("noisy_network.py").write_text(code)
    quick = ["--rule", "fixed", "--epochs", "3", "--device", "cpu", "--no-progress", "--no-tensorboard"]
    assert main(["distill", *quick, "--student", "noisy_network:Noisy", "--out", "run"]) == 0
    assert main(["validate", "run", "--no-progress", "--trust", "noisy_network:Noisy"]) == 0
    assert main(["distill", *quick, "--student", "noisy_network:Noisy", "--seed", "1", "--out", "other"]) == 0
    hashes = {json.loads(Path(run, "summary.json").read_text())["student_last_sha256"] for run in ("run", "other")}
    assert len(hashes) == 2
