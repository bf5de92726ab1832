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
