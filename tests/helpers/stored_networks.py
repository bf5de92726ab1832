"""A network to store, and whether two have the same weights."""

from __future__ import annotations

import torch
from torch import nn

from rlkd_env.models import create_model

SHAPE = (3, 16, 16)


def network(name: str = "resnet8", classes: int = 10) -> nn.Module:
    torch.manual_seed(3)
    created = create_model(name, classes, SHAPE)
    for tensor in created.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)
    return created


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    others = second.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in first.state_dict().items())
