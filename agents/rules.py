"""Policies without learning, behind the interface that learned policies have: batch outputs in, temperatures out."""

from __future__ import annotations

import torch

from rlkd_env.outputs import InstanceOutputs
from rlkd_env.registry import Registry, UsageError
from rlkd_env.temperature import Temperature


class FixedTemperature:
    """The same temperature for every instance: plain KD.

    Args:
        temperature: positive and finite.

    Raises:
        UsageError: if it is not.
    """

    def __init__(self, temperature: float) -> None:
        if not 0 < temperature < float("inf"):
            raise UsageError(f"a temperature must be positive and finite, not {temperature:g}")
        self.temperature = temperature

    def __call__(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperature N times."""
        count, device = len(outputs.labels), outputs.labels.device
        return Temperature.shared(torch.full((count,), self.temperature, device=device))


RULES: Registry[type[FixedTemperature]] = Registry("rule")
RULES.register("fixed")(FixedTemperature)
