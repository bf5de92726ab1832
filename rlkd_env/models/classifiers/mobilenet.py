"""MobileNetV2 of half width for small images (Sandler et al., arXiv 1801.04381), with the strides for CIFAR.

Parameters are named as in the published weights of RepDistiller and mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import convolution, initialise_convolutions
from rlkd_env.models.taps.features import Taps

SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""For each group of blocks: expansion, channels at full width, number of blocks, stride of the first block."""


class InvertedResidual(nn.Module):
    """A widening 1x1, a depthwise 3x3 and a narrowing 1x1 convolution; the output is linear."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        self.has_shortcut = stride == 1 and channels == out_channels
        self.conv = nn.Sequential(
            convolution(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            convolution(width, width, 3, stride, groups=width),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            convolution(width, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        return maps + self.conv(maps) if self.has_shortcut else self.conv(maps)


class MobileNetV2(nn.Module):
    """A stem of stride 2, seven groups of inverted residuals, a 1x1 convolution to 1,280 channels, a linear layer.

    Its stages are the outputs of groups 1, 2, 4 and 6 (from 0), as in RepDistiller. They are linear, so the taps have
    no pre-activations.
    """

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        current = 16
        self.conv1 = nn.Sequential(convolution(image_shape[0], current, 3, 2), nn.BatchNorm2d(current), nn.ReLU())
        self.blocks = nn.ModuleList()
        for expansion, channels, count, stride in SETTINGS:
            group = nn.Sequential()
            for index in range(count):
                group.append(InvertedResidual(current, channels // 2, stride if index == 0 else 1, expansion))
                current = channels // 2
            self.blocks.append(group)
        self.conv2 = nn.Sequential(convolution(current, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        linear = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(linear)
        self.taps = Taps(("blocks.1", "blocks.2", "blocks.4", "blocks.6"), (), "classifier.0")
        initialise_convolutions(self)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = self.conv1(images)
        for group in self.blocks:
            maps = group(maps)
        return self.classifier(self.avgpool(self.conv2(maps)).flatten(1))


MOBILENETS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    "mobilenet_v2_half": MobileNetV2,
    "MobileNetV2": MobileNetV2,
}
"""The second name is the one in the literature."""
