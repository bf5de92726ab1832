"""A network's maps of several sizes as a feature pyramid: what detectors look for objects in.

Lin et al. 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from rlkd_env.errors import UsageError

PROBE_SIZE = 64
"""Height and width of the empty image whose maps tell the strides: a multiple of all of them."""


class Pyramid(nn.Module):
    """The maps of a network's stages, brought to the same number of channels from the coarsest to the finest.

    Modules and parameters are named as in torchvision's ``BackboneWithFPN``. What of the network comes after the last
    stage, such as its classifier, is left out.

    Args:
        network: that PyTorch can trace; its modules are taken over.
        stages: names of modules whose outputs are maps ``(B, channels, h, w)``. Of those of one size the last counts.
        channels: of the images.
        finest_stride: pixels of the image a pixel of the finest map, at least.
        fpn_channels: channels of the pyramid's maps.

    Attributes:
        strides: pixels of the image a pixel of each map, without the last one, which is the last but one subsampled.
        out_channels: ``fpn_channels``, by the name that torchvision's detectors ask for.

    Raises:
        UsageError: if no stage is as coarse as ``finest_stride``.
    """

    def __init__(
        self, network: nn.Module, stages: Iterable[str], channels: int, finest_stride: int, fpn_channels: int
    ) -> None:
        super().__init__()
        by_stride = {
            PROBE_SIZE // values.shape[-1]: (name, values.shape[1])
            for name, values in _maps(network, stages, channels).items()
        }
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
        """Map images ``(B, channels, H, W)`` to maps ``(B, fpn_channels, H / stride, W / stride)`` by number of level.

        The last, ``pool``, is the one before it with every other row and column left out.
        """
        return self.fpn(self.body(images))


@torch.no_grad()
def _maps(network: nn.Module, stages: Iterable[str], channels: int) -> dict[str, Tensor]:
    """Return the stages' maps of an empty image."""
    extractor = create_feature_extractor(network, list(stages)).eval()
    return extractor(torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE))
