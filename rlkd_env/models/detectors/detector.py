"""Faster R-CNN with a feature pyramid (Ren et al., arXiv 1506.01497), on torchvision's and our own networks.

It is torchvision's implementation for images of any size and number of channels. As everywhere in this package, images
are neither scaled nor normalised by the network, and boxes are in their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.models.detectors.backbones import OWN_BACKBONES, TORCHVISION_BACKBONES, create_pyramid
from rlkd_env.models.detectors.distributions import DistributionPredictor, EdgeCoder
from rlkd_env.models.detectors.pretrained import PRETRAINED, fit_weights, load_coco
from rlkd_env.models.detectors.pyramid import Pyramid
from rlkd_env.models.taps.features import Taps


@dataclass(frozen=True)
class DetectorOptions:
    """The options of a detector.

    Attributes:
        fpn_channels: The number of channels of the pyramid's maps.
        head_width: The width of the box head's two hidden layers.
        roi_size: The height and width of the part of a map that the box head sees.
        finest_stride: The smallest stride of a map.
        training_proposals: The number of proposals per image that are kept in training, both of each map before
            non-maximum suppression and of all maps after it.
        testing_proposals: The same number in evaluation.
        sampled_proposals: The number of proposals per image that the box head is trained on.
        detections: The largest number of detections per image.
        pretrained: ``none``, ``backbone`` for ImageNet weights or ``coco`` for those of a whole detector; both are
            torchvision's and freeze batch norms and the first layers.
        anchor_scale: The size of a map's anchors in strides; proposals from 3.5 times that size on are read from the
            next map. The default is torchvision's 8, halved (except with ``coco``) until the coarsest anchors are at
            most 1.5 times the images' shorter side.
        box_bins: The number n of bins, beside the first one, over which the box head gives a distribution for every
            edge of a box (:mod:`rlkd_env.models.detectors.distributions`), 16 in the literature; 0 for torchvision's
            head, which gives numbers.
    """

    fpn_channels: int
    head_width: int
    roi_size: int
    finest_stride: int
    training_proposals: int
    testing_proposals: int
    sampled_proposals: int
    detections: int = 100
    pretrained: str = "none"
    anchor_scale: float | None = None
    box_bins: int = 0

    @classmethod
    def of(cls, backbone: str, image_shape: tuple[int, int, int], given: Mapping[str, Any]) -> DetectorOptions:
        """Return the options of a backbone: those given, and defaults that fit the images.

        torchvision's backbones have torchvision's defaults, but fewer proposals for small images: in training one per
        32 pixels of the image, of which one per 128 pixels is sampled, and at least 64 of each.

        Raises:
            UsageError: If an option is unknown or its value is invalid.
        """
        pixels = image_shape[1] * image_shape[2]
        proposals = max(64, min(2000, pixels // 32))
        is_own = backbone in OWN_BACKBONES
        options = cls(
            fpn_channels=32 if is_own else 256,
            head_width=128 if is_own else 1024,
            roi_size=5 if is_own else 7,
            finest_stride=2 if is_own else 4,
            training_proposals=proposals,
            testing_proposals=max(64, proposals // 2),
            sampled_proposals=max(64, min(512, pixels // 128)),
        )
        known = {field.name: field for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise unknown_name("option of a detector", name, known)
            if name == "pretrained":
                if value not in PRETRAINED:
                    raise unknown_name("kind of pretrained weights", value, PRETRAINED)
                continue
            kind, described = (int | float, "number") if name == "anchor_scale" else (int, "whole number")
            if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
                raise UsageError(f"the option {name!r} of a detector is a {described} above 0, not {value!r}")
        return replace(options, **given)


class Detector(FasterRCNN):
    """torchvision's Faster R-CNN on a pyramid.

    It computes C + 1 logits per proposal, the background's first. In evaluation, it maps images ``(B, channels, H, W)``
    to a list of dictionaries with ``boxes``, ``labels`` (from 1) and ``scores``; in training, images and targets to
    losses. The size of a map's anchors is ``anchor_scale`` strides.

    Raises:
        UsageError: If the images are smaller than two pixels of the coarsest stage.
    """

    weight_renames: ClassVar[Mapping[str, str]] = {
        r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$": r"\1.0.\2",
        r"^rpn\.head\.conv\.(weight|bias)$": r"rpn.head.conv.0.0.\1",
    }
    """Translates the older names in torchvision's published files."""

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        image_shape: tuple[int, int, int],
        options: DetectorOptions,
        anchor_scale: float,
    ) -> None:
        coarsest = pyramid.strides[-1]
        if min(image_shape[1:]) < 2 * coarsest:
            raise UsageError(
                f"a detector whose maps are {coarsest} times smaller than the image needs images of at least "
                f"{2 * coarsest} by {2 * coarsest} pixels, not {image_shape[1]} by {image_shape[2]}: "
                "choose a backbone with fewer stages, such as fasterrcnn/resnet20"
            )
        sizes = tuple((anchor_scale * stride,) for stride in (*pyramid.strides, 2 * coarsest))
        channels = options.fpn_channels
        super().__init__(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
            rpn_pre_nms_top_n_train=options.training_proposals,
            rpn_post_nms_top_n_train=options.training_proposals,
            rpn_pre_nms_top_n_test=options.testing_proposals,
            rpn_post_nms_top_n_test=options.testing_proposals,
            box_roi_pool=_region_pooling(pyramid.strides, options.roi_size, anchor_scale),
            box_head=TwoMLPHead(channels * options.roi_size**2, options.head_width),
            box_predictor=_predictor(options, num_classes + 1),
            box_detections_per_img=options.detections,
            box_batch_size_per_image=options.sampled_proposals,
        )
        if options.box_bins:
            self.roi_heads.box_coder = EdgeCoder()
        self.transform = _Padding(coarsest)
        self.taps = Taps(
            stages=tuple(f"backbone.fpn.layer_blocks.{level}" for level in range(len(pyramid.strides))),
            preactivations=(),
            classifier="roi_heads.box_predictor.cls_score",
        )

    def fit_weights(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights of the same detector for colour images or COCO's 91 logits to this one's."""
        return fit_weights(tensors, self.state_dict())


class _Padding(nn.Module):
    """Replaces torchvision's transform and leaves images and boxes as they are.

    Images whose size the strides do not divide are padded with zeros on the right and at the bottom, because maps and
    anchors would otherwise be misaligned.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, images: Tensor | list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        batch = images if isinstance(images, Tensor) else torch.stack(images)
        height, width = batch.shape[-2:]
        right, bottom = -width % self.stride, -height % self.stride
        if right or bottom:
            batch = nn.functional.pad(batch, (0, right, 0, bottom))
        return ImageList(batch, [(height, width)] * len(batch)), targets

    def postprocess(self, detections: list[dict[str, Tensor]], *_sizes: Any) -> list[dict[str, Tensor]]:
        return detections


def _region_pooling(strides: tuple[int, ...], size: int, anchor_scale: float) -> MultiScaleRoIAlign:
    """Return the module that crops proposals from the maps, as torchvision's does for anchors of 8 strides."""
    levels = [str(level) for level in range(len(strides))]
    canonical_size, canonical_level = 28 * anchor_scale, 4
    pooling = MultiScaleRoIAlign(levels, size, 2, canonical_scale=canonical_size, canonical_level=canonical_level)
    # By default the scales are rounded ratios of map and image, which are wrong for images with much padding.
    pooling.scales = [1 / stride for stride in strides]
    finest, coarsest = int(math.log2(strides[0])), int(math.log2(strides[-1]))
    pooling.map_levels = LevelMapper(finest, coarsest, canonical_size, canonical_level)
    return pooling


def _predictor(options: DetectorOptions, num_logits: int) -> nn.Module:
    if options.box_bins:
        return DistributionPredictor(options.head_width, num_logits, options.box_bins)
    return FastRCNNPredictor(options.head_width, num_logits)


def check_detector(backbone: str) -> None:
    """Check the name of a backbone."""
    if backbone not in OWN_BACKBONES and backbone not in TORCHVISION_BACKBONES:
        raise unknown_name("backbone of a detector", backbone, {*OWN_BACKBONES, *TORCHVISION_BACKBONES})


def create_detector(
    backbone: str, num_classes: int, image_shape: tuple[int, int, int], given: Mapping[str, Any], is_filled: bool = True
) -> Detector:
    """Create a detector of C classes, not counting the background, on one of our networks or torchvision's.

    The latter are ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``mobilenet_v2``, ``mobilenet_v3_large`` and
    ``mobilenet_v3_small``. The ``given`` :class:`DetectorOptions` differ from the defaults. The pretrained weights that
    they ask for are loaded only if ``is_filled``.
    """
    check_detector(backbone)
    options = DetectorOptions.of(backbone, image_shape, given)
    pyramid = create_pyramid(
        backbone,
        image_shape,
        options.finest_stride,
        options.fpn_channels,
        is_frozen=options.pretrained != "none",
        is_filled=is_filled and options.pretrained == "backbone",
    )
    anchor_scale = options.anchor_scale or _anchor_scale(image_shape, pyramid, options.pretrained)
    detector = Detector(pyramid, num_classes, image_shape, options, anchor_scale)
    if options.pretrained == "coco":
        load_coco(detector, backbone, is_filled)
    return detector


def _anchor_scale(image_shape: tuple[int, int, int], pyramid: Pyramid, pretrained: str) -> float:
    """Return the default size of anchors in strides, see :class:`DetectorOptions`."""
    scale = 8.0
    while pretrained != "coco" and scale * 2 * pyramid.strides[-1] > 1.5 * min(image_shape[1:]):
        scale /= 2
    return scale
