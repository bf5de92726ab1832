"""Rules that follow chance or one number about the instance, or nothing at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from agents.rules.base import Rule, check_choice, check_positive, check_temperature, number_type, repeat
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.features import FEATURES
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.utils.choices import ActionScale
from rlkd_env.utils.seeds import DeviceGenerator

_RANDOM_RULE = 0x7E39
"""Keeps a rule's draws apart from everything else that follows from the same seed and step."""


class FixedTemperature(Rule):
    """The same temperature for every instance: plain KD."""

    temperature_options = ("temperature",)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperature N times."""
        return Temperature.shared(repeat(self.temperature, outputs))


class _Drawn(Rule):
    """Random temperatures that follow from the seed and the step, so that a checkpoint need not hold anything.

    The generator lives on the outputs' device, so drawing waits for nothing, but draws differ between CPU and GPU.
    """

    is_function = False
    from_run = ("seed",)

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generator = DeviceGenerator()

    def draw(self, outputs: InstanceOutputs, distribution: Callable[..., Tensor]) -> Tensor:
        """Draw a number ``(N,)`` for every instance by ``torch.rand`` or ``torch.randn``."""
        device = outputs.labels.device
        generator = self._generator.seeded(device, _RANDOM_RULE, self._seed, outputs.step)
        return distribution(outputs.labels.shape, generator=generator, dtype=number_type(outputs), device=device)


class RandomTemperature(_Drawn):
    """A temperature per instance, uniform in the range, or uniform in its logarithm.

    Args:
        low: lowest temperature.
        high: highest temperature.
        scale: ``"log"`` (log-uniform) or ``"linear"`` (uniform).
        seed: the seed of the draws, together with the step.
    """

    temperature_options = ("low", "high")

    def __init__(self, low: float, high: float, scale: str = "log", seed: int = 0) -> None:
        super().__init__(seed)
        self._map = _action_map(low, high, scale)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Draw the temperatures."""
        return Temperature.shared(self._map.to_temperature(2.0 * self.draw(outputs, torch.rand) - 1.0))


class PublicAgent(_Drawn):
    """T = 10 · sigmoid(x) with x from N(0, 0.6²): what the untrained agent of RLKD's public code does.

    Args:
        maximum: largest temperature; 10 in the public code.
        deviation: standard deviation of x.
        seed: the seed of the draws, together with the step.
    """

    temperature_options = ("maximum",)

    def __init__(self, maximum: float = 10.0, deviation: float = 0.6, seed: int = 0) -> None:
        super().__init__(seed)
        self.maximum = check_temperature(maximum)
        self.deviation = check_positive("deviation", deviation, zero=True)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Draw the temperatures."""
        return Temperature.shared(self.maximum * torch.sigmoid(self.deviation * self.draw(outputs, torch.randn)))


class _ByNumber(Rule):
    """T goes from low to high as a number in [0, 1] about the instance goes from 0 to 1 (rising), or from 1 to 0."""

    temperature_options = ("low", "high")

    def __init__(
        self, low: float, high: float, of: str = "teacher", direction: str = "rising", scale: str = "linear"
    ) -> None:
        super().__init__()
        self.of = check_choice("of", of, ("teacher", "student"))
        self.sign = 1.0 if check_choice("direction", direction, ("rising", "falling")) == "rising" else -1.0
        self._map = _action_map(low, high, scale)

    @abstractmethod
    def number(self, outputs: InstanceOutputs) -> Tensor:
        """Return the number ``(N,)``."""

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures."""
        action = self.sign * (2.0 * self.number(outputs).to(number_type(outputs)) - 1.0)
        return Temperature.shared(self._map.to_temperature(action))


class EntropyRule(_ByNumber):
    """T rises or falls with the normalised entropy -Σ p log p / log C. Arguments as in :class:`DifficultyRule`."""

    def number(self, outputs: InstanceOutputs) -> Tensor:
        """Return the normalised entropy ``(N,)``."""
        return FEATURES[f"{self.of}_entropy"].compute(outputs)


class DifficultyRule(_ByNumber):
    """The temperature rises or falls with the difficulty 1 - p_y, where p_y is the probability of the true class.

    Args:
        low: lowest temperature.
        high: highest temperature.
        of: the network for which the instance is difficult: ``"student"`` or ``"teacher"``.
        direction: ``"rising"`` or ``"falling"``.
        scale: ``"linear"``, or ``"log"`` for equal ratios of the temperature.
    """

    def __init__(
        self, low: float, high: float, of: str = "student", direction: str = "rising", scale: str = "linear"
    ) -> None:
        super().__init__(low, high, of, direction, scale)

    def number(self, outputs: InstanceOutputs) -> Tensor:
        """Return the difficulty ``(N,)``."""
        return 1.0 - FEATURES[f"{self.of}_performance"].compute(outputs)


def _action_map(low: float, high: float, scale: str) -> ActionMap:
    bounds = TemperatureRange(check_temperature(low), check_temperature(high))
    return ActionMap(bounds, cast(ActionScale, scale))  # which checks the word
