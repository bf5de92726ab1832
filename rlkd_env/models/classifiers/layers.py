"""Helpers that the network families share."""

from __future__ import annotations

from torch import nn

from rlkd_env.errors import UsageError


def convolution(channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that only its stride makes smaller than its input."""
    return nn.Conv2d(channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the weights of every convolution from He's normal distribution over the fan-out and set its bias to zero.

    See He et al., arXiv 1502.01852, equation 14. The published CIFAR results of these families use it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_size(network: str, image_shape: tuple[int, int, int], smallest: int) -> None:
    """Check that images are large enough for a network that halves them without padding."""
    _, height, width = image_shape
    if min(height, width) < smallest:
        raise UsageError(
            f"{network} needs images of at least {smallest} by {smallest} pixels, not {height} by {width}: "
            f"choose a network with fewer poolings, such as resnet20"
        )
