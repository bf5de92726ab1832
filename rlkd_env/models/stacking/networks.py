"""K networks of one architecture as one: their weights are stacked, so that one call forwards them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rlkd_env.models.stacking.fully_connected import fully_connected
from rlkd_env.models.stacking.per_run import is_shared
from rlkd_env.models.stacking.traced import traced


class StackedNetworks(nn.Module):
    """K networks, each with its own images or all with the same.

    Fully connected networks are forwarded by one batched matrix product for each layer. Others are traced by
    ``torch.fx``: K convolutions are one with K times the groups, K batch norms are one over K times the channels, and
    what has no such form goes through ``torch.func.vmap``, operation by operation. What cannot be traced goes through
    it as a whole. Nothing waits for the device, and running statistics are updated in place.

    Args:
        networks: the K networks on their device; the first becomes ``weights``.
        shares_images: whether :meth:`forward` is given images that are the same for all networks.

    Attributes:
        weights: a network whose parameters and buffers are those of all, stacked to ``(K, ...)``; the memory order of
            each network's own is kept.
        count: the number K.
        is_fully_connected: whether there are no feature maps.
    """

    def __init__(self, networks: Sequence[nn.Module], shares_images: bool = False) -> None:
        super().__init__()
        self.count = len(networks)
        self.shares_images = shares_images
        self.weights = networks[0]
        everyone = [_tensors(network) for network in networks]
        for name, first in everyone[0].items():
            stacked = torch.stack([tensors[name].detach() for tensors in everyone])
            is_parameter = isinstance(first, nn.Parameter)
            owner, _, own_name = name.rpartition(".")
            value = nn.Parameter(stacked, first.requires_grad) if is_parameter else stacked
            setattr(self.weights.get_submodule(owner), own_name, value)
        layers = fully_connected(self.weights)
        self.is_fully_connected = layers is not None
        self._compute: Callable[[Tensor], Tensor] = (
            layers or traced(self.weights, self.count) or partial(_vmapped, self.weights)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(K · N, C)``, one network's after another's.

        The images are ``(K · N, channels, height, width)``, or ``(N, channels, height, width)`` if they are shared.
        """
        if self.shares_images:
            return self.forward_shared(images).flatten(0, 1)
        return self._compute(images.unflatten(0, (self.count, -1))).flatten(0, 1)

    def forward_shared(self, images: Tensor) -> Tensor:
        """Return all networks' logits ``(K, N, C)`` on the same images ``(N, channels, height, width)``."""
        return self._compute(images.expand(self.count, *images.shape))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _vmapped(network: nn.Module, images: Tensor) -> Tensor:
    """Return logits ``(K, N, C)`` of images ``(K, N, ...)``."""

    def of_one(tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(network, tensors, (images,))

    if is_shared(images):
        return vmap(of_one, in_dims=(0, None))(_tensors(network), images[0])
    return vmap(of_one)(_tensors(network), images)
