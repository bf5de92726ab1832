"""A small network from a large one: your own data, your own networks, several ways to set the temperatures.

Run ``python examples/distil_own_network.py``; ``--small`` makes a few epochs.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from experiments import distill

EPOCHS = 3 if "--small" in sys.argv else 120


def teacher_network() -> nn.Module:
    """Return the large network, untrained."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def student_network() -> nn.Module:
    """Return a fresh small network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def trained_teacher(images: np.ndarray, classes: np.ndarray) -> nn.Module:
    """Train the large network on images that are normalised as those of arrays are."""
    inputs = torch.tensor((images - images.mean()) / images.std())[:, None]
    torch.manual_seed(0)
    teacher = teacher_network()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(teacher(inputs), torch.tensor(classes)).backward()
        optimizer.step()
    return teacher


def main() -> None:
    """Distil with a fixed temperature, a published rule, and temperatures that fall along the run."""
    pixels, classes = load_digits(return_X_y=True)
    images = (pixels / 16).reshape(-1, 8, 8).astype(np.float32)
    train, test = (images[:1000], classes[:1000]), (images[1000:], classes[1000:])
    teacher = trained_teacher(*train)
    for temperature in (2, "lskd", "anneal"):
        result = distill(teacher, student_network, train, temperature, epochs=EPOCHS, test=test, progress=False)
        print(
            f"temperature {temperature}: student {result.test_accuracy:.3f}, teacher {result.teacher_test_accuracy:.3f}"
        )
    torch.save(result.student.state_dict(), "student.pt")  # an ordinary module


if __name__ == "__main__":
    main()
