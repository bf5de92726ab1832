"""Random draws: seeding torch's global generator for a while, and the state of all global generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of a device, and restore them at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the generators on the CPU of Python, NumPy and torch at the end."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (users' transforms draw from it)
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_generators(seed: int) -> None:
    """Seed the generators on the CPU of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    # torch.manual_seed would also note, seed by seed, what to seed on devices that are not in use.
    torch.default_generator.manual_seed(seed)


def is_stochastic(network: nn.Module) -> bool:
    """Return whether a network draws random numbers in training: by dropout, or by stochastic depth.

    Torchvision's modules for that are known, and timm's, where ``drop_rate`` is for dropout without a module.
    """
    return any(
        isinstance(module, _DropoutNd)
        or type(module).__name__ in ("StochasticDepth", "DropPath", "PatchDropout")
        or (isinstance(rate := getattr(module, "drop_rate", 0.0), float) and rate > 0.0)
        for module in network.modules()
    )


def random_state() -> dict[str, Any]:
    """Return the state of the global generators of Python, NumPy and torch, all of which agents draw from."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (stable-baselines3 draws from it)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def load_random_state(state: dict[str, Any]) -> None:
    """Restore :func:`random_state`."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
