"""With how many CPU threads a run is computed: one where its networks are so small that more would only wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGE_UPDATE = 1e9
"""Floating-point operations of an update's forward passes from which several threads pay off; measured, see
``docs/performance.md``."""


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use this number of CPU threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_threads(networks: list[nn.Module], images: Tensor) -> None:
    """Let PyTorch use one thread from now on if an update of classifiers on a batch of CPU images is small.

    The choice follows from networks and batch and not from a measurement, so that a run that is made or resumed again
    is the same, bit for bit. Who has set ``OMP_NUM_THREADS`` has chosen.
    """
    is_chosen = torch.get_num_threads() == 1 or "OMP_NUM_THREADS" in os.environ
    if not is_chosen and images.device.type == "cpu" and operations(networks, images[:1]) * len(images) < LARGE_UPDATE:
        torch.set_num_threads(1)


@torch.no_grad()
def operations(networks: list[nn.Module], images: Tensor) -> int:
    """Return the floating-point operations of the images' way through networks, which are in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        for network in networks:
            network(images)
    return int(counter.get_total_flops())
