"""From the states of K single runs to the state of stacked ones, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_NOT_STACKED = "step"
"""Adam's own count, which all runs share."""


def state_of_run(stacked: dict[str, Any], run: int) -> dict[str, Any]:
    """Take one run's part out of a stacked optimiser's ``state_dict``."""
    state = {
        index: {
            name: value[run].clone() if isinstance(value, Tensor) and name != _NOT_STACKED else value
            for name, value in values.items()
        }
        for index, values in stacked["state"].items()
    }
    return {"state": state, "param_groups": [dict(group) for group in stacked["param_groups"]]}


def stack_states(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the ``state_dict`` of K optimisers that have made as many updates."""
    first = states[0]
    stacked = {
        index: {
            name: torch.stack([state["state"][index][name] for state in states])
            if isinstance(value, Tensor) and name != _NOT_STACKED
            else value
            for name, value in values.items()
        }
        for index, values in first["state"].items()
    }
    return {"state": stacked, "param_groups": first["param_groups"]}
