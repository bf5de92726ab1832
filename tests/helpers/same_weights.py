"""That two networks have the same weights and running statistics, as far as a device computes them alike."""

from __future__ import annotations

import torch
from torch import nn


def assert_same_weights(first: nn.Module, second: nn.Module, device: str) -> None:
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if device == "cpu" else {"rtol": 1e-3, "atol": 1e-4}
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, **tolerance)
