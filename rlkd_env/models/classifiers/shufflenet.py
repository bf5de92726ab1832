"""ShuffleNet V1 (Zhang et al., arXiv 1707.01083) and V2 (Ma et al., arXiv 1807.11164) for small images.

The stem is a 1x1 convolution without stride. Parameters are named as in the published weights of RepDistiller and
mdistiller and, as there, initialised by PyTorch's defaults.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import convolution
from rlkd_env.models.taps.features import Taps

STEM_CHANNELS = 24


class GroupedBlock(nn.Module):
    """The unit of ShuffleNet V1: grouped 1x1, depthwise 3x3 and grouped 1x1 convolutions around a shortcut.

    With stride 2 the shortcut is pooled and its channels are appended; otherwise it is added.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        own_channels = out_channels - channels if stride == 2 else out_channels
        width = own_channels // 4
        # The stem's 24 channels are too few to group.
        self.first_groups = 1 if channels == STEM_CHANNELS else groups
        self.conv1, self.bn1 = convolution(channels, width, 1, groups=self.first_groups), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride, groups=width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, own_channels, 1, groups=groups), nn.BatchNorm2d(own_channels)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        inner = F.channel_shuffle(F.relu(self.bn1(self.conv1(maps))), self.first_groups)
        inner = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inner)))))
        return self.relu(inner + maps if self.pool is None else torch.cat([inner, self.pool(maps)], 1))


class SplitBlock(nn.Module):
    """The unit of ShuffleNet V2: half of the channels pass unchanged, the other half through three convolutions.

    ``relu`` is applied to all channels after the shuffle. That is the same as activating the second half before it,
    because the first half has already been activated by the previous unit.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.conv1, self.bn1 = convolution(width, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, groups=width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, width, 1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        passed, inner = maps.chunk(2, dim=1)
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(inner)))))
        return self.relu(F.channel_shuffle(torch.cat([passed, self.bn3(self.conv3(inner))], 1), 2))


class DownsamplingBlock(nn.Module):
    """The unit of ShuffleNet V2 that halves the map: two paths from all channels, each to half of the output's."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.conv1, self.bn1 = convolution(channels, channels, 3, 2, groups=channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = convolution(channels, width, 1), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(channels, width, 1), nn.BatchNorm2d(width)
        self.conv4, self.bn4 = convolution(width, width, 3, 2, groups=width), nn.BatchNorm2d(width)
        self.conv5, self.bn5 = convolution(width, width, 1), nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, out_channels, H / 2, W / 2)``."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(maps)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(maps)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return F.channel_shuffle(torch.cat([left, right], 1), 2)


class _ShuffleNet(nn.Module):
    """A 1x1 stem, three stages of 4, 8 and 4 blocks, average pooling and a linear layer.

    If there is a ``head_width``, a 1x1 convolution to that many channels follows the stages.
    """

    def __init__(
        self, widths: tuple[int, int, int], head_width: int | None, num_classes: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(image_shape[0], STEM_CHANNELS, 1), nn.BatchNorm2d(STEM_CHANNELS)
        self.layer1 = self._stage(STEM_CHANNELS, widths[0], blocks=4)
        self.layer2 = self._stage(widths[0], widths[1], blocks=8)
        self.layer3 = self._stage(widths[1], widths[2], blocks=4)
        self.conv2 = None if head_width is None else convolution(widths[2], head_width, 1)
        self.bn2 = None if head_width is None else nn.BatchNorm2d(head_width)
        self.linear = nn.Linear(head_width or widths[2], num_classes)
        self.taps = Taps(
            stages=("layer1", "layer2", "layer3"),
            preactivations=("layer1.3.relu", "layer2.7.relu", "layer3.3.relu"),
            classifier="linear",
        )

    @staticmethod
    def _stage(channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        if self.conv2 is not None and self.bn2 is not None:
            maps = F.relu(self.bn2(self.conv2(maps)))
        return self.linear(F.adaptive_avg_pool2d(maps, 1).flatten(1))


class ShuffleNetV1(_ShuffleNet):
    """Three stages of 240, 480 and 960 channels in three groups."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__((240, 480, 960), None, num_classes, image_shape)

    @staticmethod
    def _stage(channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        first = GroupedBlock(channels, out_channels, stride=2, groups=3)
        others = (GroupedBlock(out_channels, out_channels, stride=1, groups=3) for _ in range(blocks - 1))
        return nn.Sequential(first, *others)


class ShuffleNetV2(_ShuffleNet):
    """Three stages of 116, 232 and 464 channels, and a 1x1 convolution to 1,024 channels."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__((116, 232, 464), 1024, num_classes, image_shape)

    @staticmethod
    def _stage(channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        first = DownsamplingBlock(channels, out_channels)
        return nn.Sequential(first, *(SplitBlock(out_channels) for _ in range(blocks - 1)))


SHUFFLENETS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    "shufflenet_v1": ShuffleNetV1,
    "shufflenet_v2": ShuffleNetV2,
    "ShuffleV1": ShuffleNetV1,
    "ShuffleV2": ShuffleNetV2,
}
"""The last two names are those in the literature."""
