"""The networks that detectors stand on, as pyramids: our own, and some of torchvision's."""

from __future__ import annotations

from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from rlkd_env.errors import UsageError
from rlkd_env.models.classifiers.digits import DIGITS_NETWORKS
from rlkd_env.models.classifiers.own_networks import MODELS
from rlkd_env.models.classifiers.torchvision_networks import replace_stem
from rlkd_env.models.detectors.pretrained import fetch, fit_weights
from rlkd_env.models.detectors.pyramid import Pyramid
from rlkd_env.models.taps.features import taps_of

OWN_BACKBONES = frozenset(MODELS) - frozenset(DIGITS_NETWORKS)
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
MOBILENETS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
TORCHVISION_BACKBONES = frozenset((*RESNETS, *MOBILENETS))


def create_pyramid(
    backbone: str,
    image_shape: tuple[int, int, int],
    finest_stride: int,
    fpn_channels: int,
    is_frozen: bool,
    is_filled: bool,
) -> Pyramid:
    """Create the pyramid of a backbone.

    Args:
        backbone: one of :data:`OWN_BACKBONES` or :data:`TORCHVISION_BACKBONES`.
        image_shape: channels, height, width.
        finest_stride: pixels of the image a pixel of the finest map, at least.
        fpn_channels: channels of the maps.
        is_frozen: whether batch normalisation and the first layers are never trained, as torchvision has it where
            weights are pretrained; all is trained otherwise.
        is_filled: whether the backbone has torchvision's weights of ImageNet.

    Raises:
        UsageError: if weights are asked for that do not exist or cannot be had.
    """
    channels = image_shape[0]
    if backbone in OWN_BACKBONES:
        if is_frozen:
            raise UsageError(
                f"there are no pretrained weights of {backbone}: only of {', '.join(sorted(TORCHVISION_BACKBONES))}"
            )
        own = MODELS[backbone](1, image_shape)  # the classifier is left out
        return Pyramid(own, taps_of(own).stages, channels, finest_stride, fpn_channels)
    network = models.get_model(backbone, weights=None, norm_layer=FrozenBatchNorm2d if is_frozen else nn.BatchNorm2d)
    if channels != 3:
        replace_stem(network, channels)
    if is_filled:
        weights = fetch(models.get_model_weights(backbone).IMAGENET1K_V1, backbone)
        network.load_state_dict(fit_weights(weights, network.state_dict()))
    body, stages = _stages(network, backbone)
    if is_frozen:
        _freeze(body, backbone)
    return Pyramid(body, stages, channels, finest_stride, fpn_channels)


def _stages(network: nn.Module, backbone: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the part of a network that gives maps, and the names of the modules whose outputs they are."""
    if backbone in RESNETS:
        return network, tuple(f"layer{stage}" for stage in range(1, 5))
    features = network.get_submodule("features")
    return features, tuple(name for name, _ in features.named_children())


def _freeze(body: nn.Module, backbone: str) -> None:
    """Let only the last three stages be trained, as torchvision does with pretrained ones."""
    if backbone in RESNETS:
        frozen = [body.get_submodule(name) for name in ("conv1", "bn1", "layer1")]
    else:
        blocks = list(body.children())
        strided = [index for index, block in enumerate(blocks) if getattr(block, "_is_cn", False)]
        frozen = blocks[: [0, *strided, len(blocks) - 1][-3]]
    for module in frozen:
        module.requires_grad_(False)
