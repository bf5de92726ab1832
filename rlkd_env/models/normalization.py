"""A network whose images are normalised by other constants than those that it is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.models.taps.features import Taps, set_taps

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of every channel, for pixels from 0 to 1."""


class Renormalized(nn.Module):
    """A network that takes images normalised in one way, and sees them normalised in another.

    Args:
        network: The network.
        given: The mean and standard deviation ``(channels,)`` that images are normalised by.
        wanted: Those that the network was trained with; if it takes three channels, grey images become colour ones.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        given: Constants,
        wanted: Constants,
    ) -> None:
        super().__init__()
        self.network, self.constants = network, wanted
        (mean, std), (own_mean, own_std) = (torch.tensor(one, dtype=torch.float64) for one in (given, wanted))
        for name, values in {"scale": std / own_std, "shift": (mean - own_mean) / own_std}.items():
            self.register_buffer(name, values.float().view(-1, 1, 1))
        taps = getattr(network, "taps", None)
        if isinstance(taps, Taps):
            stages, before, (head,) = (
                tuple(f"network.{name}" for name in names)
                for names in (taps.stages, taps.preactivations, (taps.classifier,))
            )
            set_taps(self, Taps(stages, before, head))

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits ``(N, C)``."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits
