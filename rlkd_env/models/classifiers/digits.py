"""Small networks for the 8 by 8 digits: a convolutional teacher and fully connected students."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import nn

from rlkd_env.models.classifiers.layers import require_size
from rlkd_env.models.taps.features import Taps, set_taps


def digits_cnn(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a network of two 3x3 convolutions, max pooling and a hidden layer, with 151,306 parameters on Digits."""
    require_size("digits_cnn", image_shape, smallest=2)
    channels, height, width = image_shape
    maps = (nn.Conv2d(channels, 32, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, kernel_size=3, padding=1))
    hidden = (nn.Linear(64 * (height // 2) * (width // 2), 128), nn.ReLU(), nn.Linear(128, num_classes))
    network = nn.Sequential(*maps, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *hidden)
    return set_taps(network, Taps(stages=("1", "3"), preactivations=("1", "3"), classifier="8"))


def mlp(hidden_units: int, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a network of one hidden layer with ReLU, which with 12 units has 910 parameters on Digits."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), hidden_units), nn.ReLU(), nn.Linear(hidden_units, num_classes)
    )
    return set_taps(network, Taps(stages=(), preactivations=(), classifier="3"))


DIGITS_NETWORKS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    "digits_cnn": digits_cnn,
    **{f"mlp{units}": partial(mlp, units) for units in (6, 8, 12, 16, 32, 64, 128, 256)},
}
