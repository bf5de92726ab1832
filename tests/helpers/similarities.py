"""What the definitions of PKT and SP, which compare similarities of features, have in common."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def features(n: int, student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return (
        torch.randn(n, *student, generator=generator, dtype=torch.float64),
        torch.randn(n, *teacher, generator=generator, dtype=torch.float64).relu(),
    )


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
