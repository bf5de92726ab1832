"""An agent's policy that acts as it does while it learns: by draws from its distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents.learned.temperature_policy import TemperaturePolicy
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.utils.seeds import DeviceGenerator

_ACTING = 0x5A3B
"""Keeps the draws apart from everything else that follows from the same seed and step."""


class SamplingPolicy(TemperaturePolicy):
    """Actions squash(mean + deviation · noise), where the noise is standard normal.

    The noise follows from the seed and the step alone, so a run that is resumed draws what it would have drawn. It is
    drawn on the states' device, which waits for nothing; draws differ between CPU and GPU.

    Args:
        mean: network from ``(N, d)`` states to means ``(N, 1)`` or ``(N, 2)``, before the squashing.
        deviation: network from the same states to standard deviations, which broadcast to the means' shape.
        squash: maps the noisy means into ``[-1, 1]``.
        features: the d features of the state in order.
        action_map: the map from actions to temperatures.
        seed: the seed of the noise, together with the step.
    """

    def __init__(
        self,
        mean: Sequence[nn.Module],
        deviation: Sequence[nn.Module],
        squash: nn.Module,
        features: Sequence[str],
        action_map: ActionMap | ResidualMap,
        seed: int,
    ) -> None:
        super().__init__([*mean, squash], features, action_map)
        self.mean, self.squash = nn.Sequential(*mean), squash
        self.deviation = nn.Sequential(*deviation).requires_grad_(False).eval()
        self.seed = seed
        self._generator = DeviceGenerator()

    def action(self, outputs: InstanceOutputs) -> Tensor:
        """Draw the actions ``(N, 1)`` or ``(N, 2)``."""
        state = self.state(outputs)
        mean = self.mean(state)
        generator = self._generator.seeded(mean.device, _ACTING, self.seed, outputs.step)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        drawn: Tensor = self.squash(mean + self.deviation(state) * noise)
        return drawn


class Constant(nn.Module):
    """The same values ``(a,)`` for every state, as the standard deviation of PPO's actions is."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values.detach().float().clone())

    def forward(self, state: Tensor) -> Tensor:  # noqa: ARG002
        """Return the values, for any states ``(N, d)``."""
        return self.values


class Exponential(nn.Module):
    """The exponential, which makes standard deviations of their logarithms."""

    def forward(self, values: Tensor) -> Tensor:
        """Return ``exp(values)``."""
        return values.exp()
