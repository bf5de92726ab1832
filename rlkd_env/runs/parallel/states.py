"""From the states of K single runs to the state of stacked ones, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SHARED = "step"
"""Adam's own count, which is the same for all runs."""


def state_of_run(stacked: Any, run: int) -> Any:
    """Return one run's part of a state whose tensors are those of K runs ``(K, ...)``."""
    if isinstance(stacked, dict):
        return {key: value if key == _SHARED else state_of_run(value, run) for key, value in stacked.items()}
    if isinstance(stacked, list):
        return [state_of_run(value, run) for value in stacked]
    return stacked[run].detach().clone() if isinstance(stacked, Tensor) else stacked


def stack_states(states: list[Any]) -> Any:
    """Stack the states of K runs at the same step; what is no tensor is the first one's."""
    first = states[0]
    if isinstance(first, dict):
        return {
            key: value if key == _SHARED else stack_states([state[key] for state in states])
            for key, value in first.items()
        }
    return torch.stack(states) if isinstance(first, Tensor) else first
