"""Residual networks for small images (He et al., arXiv 1512.03385; the CIFAR networks are in section 4.2).

Parameters are named as in the published weights of RepDistiller and mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import convolution, initialise_convolutions
from rlkd_env.models.taps.features import Taps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; ``relu`` is the activation after the sum."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        inner = self.relu1(self.bn1(self.conv1(maps)))
        return self.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a widening 1x1 convolution with a shortcut; ``relu`` is the activation after the sum."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1, self.bn1 = convolution(channels, width, 1), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3, self.bn3 = convolution(width, out_channels, 1), nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(channels, out_channels, stride)
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, 4 * width, H / stride, W / stride)``."""
        inner = self.relu1(self.bn1(self.conv1(maps)))
        inner = self.relu2(self.bn2(self.conv2(inner)))
        return self.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


def shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut of a block: the identity, or a projection if the map's shape changes."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(convolution(channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A 3x3 stem, stages of residual blocks of which all but the first halve the map, average pooling, a linear layer.

    Each stage has its number of ``blocks`` and their width.
    """

    weight_renames: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        stem_channels: int,
        widths: tuple[int, ...],
        num_classes: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, stem_channels, 3), nn.BatchNorm2d(stem_channels)
        self.relu = nn.ReLU()
        self.stages = tuple(f"layer{stage + 1}" for stage in range(len(widths)))
        current = stem_channels
        for stage, name in enumerate(self.stages):
            layers = nn.Sequential()
            for index in range(blocks[stage]):
                layers.append(block(current, widths[stage], stride=2 if stage > 0 and index == 0 else 1))
                current = widths[stage] * block.expansion
            self.add_module(name, layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(current, num_classes)
        self.taps = Taps(
            stages=self.stages,
            preactivations=tuple(f"{name}.{count - 1}.relu" for name, count in zip(self.stages, blocks, strict=True)),
            classifier="fc",
        )
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = self.relu(self.bn1(self.conv1(images)))
        for name in self.stages:
            maps = getattr(self, name)(maps)
        return self.fc(self.avgpool(maps).flatten(1))


class ImageNetResNet(ResNet):
    """The four-stage ResNets of ImageNet with a 3x3 stem and no first pooling, for images of 32 to 64 pixels.

    Published files name the projection of the shortcut ``shortcut`` and the last layer ``linear``; here all ResNets use
    torchvision's names ``downsample`` and ``fc``.
    """

    weight_renames: ClassVar[Mapping[str, str]] = {r"\.shortcut\.": ".downsample.", r"^linear\.": "fc."}

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__(block, blocks, 64, (64, 128, 256, 512), num_classes, image_shape[0])


def cifar_resnet(depth: int, factor: int, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a three-stage ResNet of basic blocks with 6n + 2 layers.

    The widths are 16, 32 and 64 times the factor, after a stem of 16 channels, or 32 if the factor is 4.
    """
    blocks = ((depth - 2) // 6,) * 3
    stem_channels = 16 if factor == 1 else 8 * factor
    widths = (16 * factor, 32 * factor, 64 * factor)
    return ResNet(BasicBlock, blocks, stem_channels, widths, num_classes, image_shape[0])


RESNETS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    **{f"resnet{depth}": partial(cifar_resnet, depth, 1) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(cifar_resnet, depth, 4) for depth in (8, 32)},
    "resnet18_cifar": partial(ImageNetResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50_cifar": partial(ImageNetResNet, Bottleneck, (3, 4, 6, 3)),
}
