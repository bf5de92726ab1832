"""Draws from torch's global generator that follow from a seed and leave the generator as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of a device, and restore them at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def is_stochastic(network: nn.Module) -> bool:
    """Return whether a network draws random numbers in training: by dropout, or torchvision's stochastic depth."""
    return any(
        isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth" for module in network.modules()
    )
