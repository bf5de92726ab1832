"""From a run's folder to a network that needs neither this package nor, in the end, Python.

Run ``python examples/export_student.py``; ``--small`` makes a run of a few epochs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import torch

from experiments.cli import main as rlkd
from rlkd_env.models import load_network

EPOCHS = 3 if "--small" in sys.argv else 120


def main() -> None:
    """Distil a student on the command line, load it as a plain module and export it."""
    folder = Path(mkdtemp())
    rlkd(["distill", "--epochs", str(EPOCHS), "--out", str(folder / "run"), "--no-progress"])

    student = load_network(folder / "run" / "student.safetensors", num_classes=10, image_shape=(1, 8, 8))
    images = torch.rand(4, 1, 8, 8)

    batch = torch.export.Dim("batch")
    exported = torch.export.export(student, (images,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, folder / "student.pt2")  # the network itself, with its weights
    loaded = torch.export.load(folder / "student.pt2").module()
    print("exported:", folder / "student.pt2", "- same logits:", torch.allclose(loaded(images), student(images)))


if __name__ == "__main__":
    main()
