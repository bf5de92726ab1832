"""Plain fully connected networks, stacked: one batched matrix product for each layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

ELEMENTWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid),
)
"""Modules that treat every number by itself."""


def fully_connected(network: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return the forward of a stacked network from images ``(K, N, ...)`` to logits ``(K, N, C)``.

    It is None unless the network is a sequence of a flattening, linear layers and activations. On a CPU this costs as
    little as a third of ``torch.func.vmap`` if there are few networks.
    """
    if type(network) is not nn.Sequential:
        return None
    layers = list(network)
    flattening = layers[0] if layers else None
    if not isinstance(flattening, nn.Flatten) or (flattening.start_dim, flattening.end_dim) != (1, -1):
        return None
    plain = all(type(layer) in (nn.Linear, *ELEMENTWISE) for layer in layers[1:])
    return partial(_forward, layers[1:]) if plain else None


def linear(layer: nn.Linear, values: Tensor) -> Tensor:
    """Apply a stacked linear layer to values ``(K, N, in_features)``."""
    weights = layer.weight.transpose(1, 2)
    return torch.bmm(values, weights) if layer.bias is None else torch.baddbmm(layer.bias.unsqueeze(1), values, weights)


def _forward(layers: list[nn.Module], images: Tensor) -> Tensor:
    values = images.flatten(2)
    for layer in layers:
        values = linear(layer, values) if isinstance(layer, nn.Linear) else layer(values)
    return values
