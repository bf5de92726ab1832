"""The backbones of detectors as pyramids: our own networks and some of torchvision's."""

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
    """Create the pyramid of one of :data:`OWN_BACKBONES` or :data:`TORCHVISION_BACKBONES`.

    If it is frozen, batch norms and the first layers are never trained, as torchvision does for pretrained weights; if
    it is filled, torchvision's ImageNet weights are loaded. The other arguments are those of :class:`Pyramid`.
    """
    channels = image_shape[0]
    if backbone in OWN_BACKBONES:
        if is_frozen:
            raise UsageError(
                f"there are no pretrained weights of {backbone}, only of {', '.join(sorted(TORCHVISION_BACKBONES))}"
            )
        own = MODELS[backbone](1, image_shape)  # its classifier is left out
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
    """Return the part of a network that computes maps, and the names of the modules that output them."""
    if backbone in RESNETS:
        return network, tuple(f"layer{stage}" for stage in range(1, 5))
    features = network.get_submodule("features")
    return features, tuple(name for name, _ in features.named_children())


def _freeze(body: nn.Module, backbone: str) -> None:
    """Freeze all but the last three stages, as torchvision does for pretrained weights."""
    if backbone in RESNETS:
        frozen = [body.get_submodule(name) for name in ("conv1", "bn1", "layer1")]
    else:
        blocks = list(body.children())
        strided = [index for index, block in enumerate(blocks) if getattr(block, "_is_cn", False)]
        frozen = blocks[: [0, *strided, len(blocks) - 1][-3]]
    for module in frozen:
        module.requires_grad_(False)
