"""Wide residual networks for small images (Zagoruyko and Komodakis, arXiv 1605.07146).

Parameters are named as in the published weights of RepDistiller and mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import convolution, initialise_convolutions
from rlkd_env.models.taps.features import Taps


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and activation, with a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv1 = convolution(channels, width, 3, stride)
        self.bn2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        # The name is that in the published weights.
        self.convShortcut = convolution(channels, width, 1, stride) if channels != width else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        active = self.relu1(self.bn1(maps))
        # A projection sees the activated map, the identity the map itself.
        around = maps if self.convShortcut is None else self.convShortcut(active)
        return around + self.conv2(self.relu2(self.bn2(self.conv1(active))))


class Stage(nn.Module):
    """A sequence of blocks, of which the first has the stage's stride."""

    def __init__(self, blocks: int, channels: int, width: int, stride: int) -> None:
        super().__init__()
        first = PreactivationBlock(channels, width, stride)
        self.layer = nn.Sequential(first, *(PreactivationBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        return self.layer(maps)


class WideResNet(nn.Module):
    """A 3x3 stem, three stages, batch norm, activation, average pooling and a linear layer.

    There are 6n + 4 layers, of 16, 32 and 64 channels times the factor. The output of a stage is normalised and
    activated only where the next stage begins. The taps read it there, so that the stages' maps are activated ones as
    in other networks. (RepDistiller's ``f1`` to ``f3`` are not activated; its pre-activations are the same as here.)
    """

    def __init__(self, depth: int, factor: int, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16 * factor, 32 * factor, 64 * factor)
        self.conv1 = convolution(image_shape[0], 16, 3)
        self.block1 = Stage(blocks, 16, widths[0], 1)
        self.block2 = Stage(blocks, widths[0], widths[1], 2)
        self.block3 = Stage(blocks, widths[1], widths[2], 2)
        self.bn1, self.relu, self.avgpool = nn.BatchNorm2d(widths[2]), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        activations = ("block2.layer.0.relu1", "block3.layer.0.relu1", "relu")
        self.taps = Taps(stages=activations, preactivations=activations, classifier="fc")
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(self.avgpool(self.relu(self.bn1(maps))).flatten(1))


WIDE_RESNETS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    f"wrn_{depth}_{factor}": partial(WideResNet, depth, factor) for depth in (16, 40) for factor in (1, 2)
}
