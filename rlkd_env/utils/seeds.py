"""Seeds that follow from several numbers at once, such as a run's seed and a step."""

from __future__ import annotations

import numpy as np
import torch


def mixed_seed(*entropy: int) -> int:
    """Return a seed that follows from these non-negative integers alone."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded_generator(*entropy: int) -> torch.Generator:
    """Return a generator whose draws follow from these non-negative integers alone."""
    return torch.Generator().manual_seed(mixed_seed(*entropy))


class DeviceGenerator:
    """A generator for draws that follow from numbers alone, made once on the device that draws; copies have their own.

    Making one takes a GPU's host longer than launching what is drawn with it.
    """

    def __init__(self) -> None:
        self._generator: torch.Generator | None = None

    def __reduce__(self) -> tuple[type[DeviceGenerator], tuple[()]]:
        """Be copied without the generator, whose state means nothing between two draws."""
        return DeviceGenerator, ()

    def seeded(self, device: torch.device, *entropy: int) -> torch.Generator:
        """Return the generator on a device, seeded by these non-negative integers alone."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
        return self._generator.manual_seed(mixed_seed(*entropy))
