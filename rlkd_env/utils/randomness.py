"""Random draws: seeding torch's global generator for a while, and the state of all global generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of a device, and restore them at the end."""
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    """Return torch's global generators of the CPU and of a device."""
    if device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


class StepRandomness:
    """Makes all that a step draws from global generators follow from a seed, so that snapshots need no state of them.

    Torch's generators are seeded in every step. Those of Python and NumPy, which take ten times as long, are seeded as
    well if the first step has drawn from them.

    Attributes:
        draws: Whether a step has drawn random numbers so far, as far as anybody has looked.

    Args:
        device: The device whose generator is seeded beside those of the CPU.
        looks_on: Look in every step until one has drawn, and not in the first alone.
    """

    def __init__(self, device: torch.device, looks_on: bool = False) -> None:
        self.draws = False
        self._device, self._looks_on = device, looks_on
        self._is_first, self._seeds_others = True, False

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seed the generators for a step, and restore them at the end."""
        others = generators_kept() if self._is_first or self._seeds_others else contextlib.nullcontext()
        looks = self._is_first or (self._looks_on and not self.draws)
        is_first, self._is_first = self._is_first, False
        with seeded(seed, self._device), others:
            if is_first or self._seeds_others:
                seed_generators(seed)
            before = self._states(is_first) if looks else ()
            yield
            if looks:
                moved = [one != other for one, other in zip(before, self._states(is_first), strict=True)]
                self.draws |= any(moved)
                self._seeds_others |= any(moved[:2]) and is_first

    def _states(self, with_others: bool) -> list[Any]:
        """Return what is compared: the states of Python's and NumPy's generators, if asked for, and of torch's."""
        others = [random.getstate(), str(np.random.get_state())] if with_others else []  # noqa: NPY002
        return [*others, *(generator.get_state().numpy().tobytes() for generator in _generators(self._device))]


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


@torch.no_grad()
def is_stochastic(network: nn.Module, images: Tensor) -> bool:
    """Return whether a network draws random numbers in training, as dropout does.

    It is tried out on a few images ``(N, channels, height, width)``, which moves the running statistics of batch norms.
    """
    randomness, was_training = StepRandomness(images.device), network.training
    with randomness.seeded(0):
        network.train()(images)
    network.train(was_training)
    return randomness.draws


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
