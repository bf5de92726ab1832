"""Networks whose batch norms do something."""

from __future__ import annotations

import torch
from torch import nn

from rlkd_env.models import create_model

SHAPE = (3, 16, 16)


def with_statistics(name: str, num_classes: int = 10) -> nn.Module:
    """A network of random running statistics, in evaluation mode."""
    torch.manual_seed(0)
    network = create_model(name, num_classes, SHAPE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()
