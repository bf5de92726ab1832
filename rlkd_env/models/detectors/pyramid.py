"""Feature pyramids on a network's maps of several sizes (Lin et al., arXiv 1612.03144)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from rlkd_env.errors import UsageError

PROBE_SIZE = 64
"""The height and width of the empty image whose maps determine the strides; a multiple of all strides."""


class Pyramid(nn.Module):
    """The maps of a network's stages, combined from coarse to fine and with the same number of channels.

    Modules and parameters are named as in torchvision's ``BackboneWithFPN``. Layers after the last stage, such as the
    classifier, are left out.

    Args:
        network: A network that PyTorch can trace; its modules are reused.
        stages: The names of modules whose outputs are maps ``(B, channels, h, w)``; the last map of each size is used.
        channels: The number of channels of the images.
        finest_stride: The smallest stride of a map.
        fpn_channels: The number of channels of the pyramid's maps.

    Attributes:
        strides: The stride of each map except the coarsest, which is the one before it subsampled.
        out_channels: ``fpn_channels``, under the name that torchvision's detectors expect.
    """

    def __init__(
        self, network: nn.Module, stages: Iterable[str], channels: int, finest_stride: int, fpn_channels: int
    ) -> None:
        super().__init__()
        extractor = create_feature_extractor(network, list(stages)).eval()
        with torch.no_grad():
            maps = extractor(torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE))
        by_stride = {PROBE_SIZE // values.shape[-1]: (name, values.shape[1]) for name, values in maps.items()}
        self.strides = tuple(sorted(stride for stride in by_stride if stride >= finest_stride))
        if not self.strides:
            raise UsageError(
                f"the network's maps have the strides {sorted(by_stride)}, none of {finest_stride} or more"
            )
        self.out_channels = fpn_channels
        names = {by_stride[stride][0]: str(level) for level, stride in enumerate(self.strides)}
        widths = [by_stride[stride][1] for stride in self.strides]
        self.body = create_feature_extractor(network, names)
        self.fpn = FeaturePyramidNetwork(widths, fpn_channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images ``(B, channels, H, W)`` to maps ``(B, fpn_channels, H / stride, W / stride)`` by level.

        The last level, ``pool``, is the one before it without every other row and column.
        """
        return self.fpn(self.body(images))
