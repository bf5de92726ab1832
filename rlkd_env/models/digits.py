"""The small networks for the 8 by 8 digits: a convolutional teacher and a fully connected student."""

from __future__ import annotations

import math

from torch import nn


def digits_cnn(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Two 3x3 convolutions (32 and 64 channels), one pooling, one hidden layer of 128: 151,306 parameters on Digits."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 2) * (width // 2), 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def mlp(hidden_units: int, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """One hidden layer with ReLU; with 12 units 910 parameters on Digits."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, num_classes),
    )
