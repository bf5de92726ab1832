"""Faster R-CNN with a feature pyramid, on torchvision's and our own networks, for images of any size and channels.

Ren et al. 2015, arXiv 1506.01497, as torchvision has it. Images come as networks get them everywhere else here: neither
scaled nor normalised, and boxes are in their pixels.
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
from rlkd_env.models.detectors.pretrained import PRETRAINED, fit_weights, load_coco
from rlkd_env.models.detectors.pyramid import Pyramid
from rlkd_env.models.taps.features import Taps

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Heights of the anchors by their widths."""


@dataclass(frozen=True)
class DetectorOptions:
    """What can be chosen of a detector.

    Attributes:
        fpn_channels: of the pyramid's maps.
        head_width: of the two hidden layers that see a proposal.
        roi_size: height and width of the part of a map that they see.
        finest_stride: pixels of the image a pixel of the pyramid's finest map, at least.
        training_proposals: kept of an image in training, both of each map before and of all after suppression.
        testing_proposals: the same in evaluation.
        sampled_proposals: of an image, that the box head is trained on.
        detections: at most, of an image.
        pretrained: ``none``, ``backbone`` for weights of ImageNet or ``coco`` for those of a whole detector, both
            torchvision's, with frozen batch normalisation and first layers as there.
        anchor_scale: size of a map's anchors in its strides; proposals from 3.5 times that size on are read from the
            next map. By default torchvision's 8, halved until the coarsest anchors are at most 1.5 times the images'
            shorter side; with ``coco`` not halved.
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

    @classmethod
    def of(cls, backbone: str, image_shape: tuple[int, int, int], given: Mapping[str, Any]) -> DetectorOptions:
        """Return the options of a backbone for images, those given in place of the defaults.

        torchvision's backbones have torchvision's defaults, but fewer proposals of small images: in training one for 32
        pixels of the image, of which it samples one for 128, and at least 64 of each.

        Raises:
            UsageError: if an option is unknown or its value is none of its kind.
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

    It gives C + 1 logits a proposal, the background first. In evaluation images ``(B, channels, H, W)`` become a list
    of dictionaries with ``boxes``, ``labels`` (from 1) and ``scores``; in training images and targets become losses.

    Args:
        pyramid: the maps.
        num_classes: number of classes C, without the background.
        image_shape: channels, height, width.
        options: all others.
        anchor_scale: size of a map's anchors in its strides.

    Raises:
        UsageError: if the images are smaller than two pixels of the coarsest stage.
    """

    weight_renames: ClassVar[Mapping[str, str]] = {
        r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$": r"\1.0.\2",
        r"^rpn\.head\.conv\.(weight|bias)$": r"rpn.head.conv.0.0.\1",
    }
    """torchvision's published files have older names."""

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
            rpn_anchor_generator=AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes)),
            rpn_pre_nms_top_n_train=options.training_proposals,
            rpn_post_nms_top_n_train=options.training_proposals,
            rpn_pre_nms_top_n_test=options.testing_proposals,
            rpn_post_nms_top_n_test=options.testing_proposals,
            box_roi_pool=_region_pooling(pyramid.strides, options.roi_size, anchor_scale),
            box_head=TwoMLPHead(channels * options.roi_size**2, options.head_width),
            box_predictor=FastRCNNPredictor(options.head_width, num_classes + 1),
            box_detections_per_img=options.detections,
            box_batch_size_per_image=options.sampled_proposals,
        )
        self.transform = _Padding(coarsest)
        self.taps = Taps(
            stages=tuple(f"backbone.fpn.layer_blocks.{level}" for level in range(len(pyramid.strides))),
            preactivations=(),
            classifier="roi_heads.box_predictor.cls_score",
        )

    def fit_weights(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of the same detector for colour images or all of COCO's numbers of classes as this one's."""
        return fit_weights(tensors, self.state_dict())


class _Padding(nn.Module):
    """In place of torchvision's transform: images and boxes stay as they are.

    Images whose size the strides do not divide are padded with zeros on the right and at the bottom, as maps and
    anchors would not lie on each other otherwise.
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

    def postprocess(
        self,
        detections: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],  # noqa: ARG002
        original_image_sizes: list[tuple[int, int]],  # noqa: ARG002
    ) -> list[dict[str, Tensor]]:
        return detections


def _region_pooling(strides: tuple[int, ...], size: int, anchor_scale: float) -> MultiScaleRoIAlign:
    """Return the module that cuts proposals out of the maps: out of torchvision's where anchors are of 8 strides."""
    levels = [str(level) for level in range(len(strides))]
    canonical_size, canonical_level = 28 * anchor_scale, 4
    pooling = MultiScaleRoIAlign(levels, size, 2, canonical_scale=canonical_size, canonical_level=canonical_level)
    # Otherwise found by rounding the ratio of map and image, which goes wrong where much was padded.
    pooling.scales = [1 / stride for stride in strides]
    pooling.map_levels = LevelMapper(
        int(math.log2(strides[0])), int(math.log2(strides[-1])), canonical_size, canonical_level
    )
    return pooling


def check_detector(backbone: str) -> None:
    """Check the name of a backbone.

    Raises:
        UsageError: if no detector has it.
    """
    if backbone not in OWN_BACKBONES and backbone not in TORCHVISION_BACKBONES:
        raise unknown_name("backbone of a detector", backbone, {*OWN_BACKBONES, *TORCHVISION_BACKBONES})


def create_detector(
    backbone: str, num_classes: int, image_shape: tuple[int, int, int], given: Mapping[str, Any], is_filled: bool = True
) -> Detector:
    """Create a detector.

    Args:
        backbone: one of ours but the fully connected ones, or ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``,
            ``mobilenet_v2``, ``mobilenet_v3_large`` or ``mobilenet_v3_small`` of torchvision.
        num_classes: number of classes C, without the background.
        image_shape: channels, height, width.
        given: of :class:`DetectorOptions`, in place of the defaults.
        is_filled: whether pretrained weights are loaded, where the options ask for some, or the network is only built
            like one that has them.

    Raises:
        UsageError: if the name or an option is unknown, the images are too small, or pretrained weights do not exist or
            cannot be had.
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
    """Return the size of anchors in strides, as :class:`DetectorOptions` says."""
    scale = 8.0
    subsampled = 2 * pyramid.strides[-1]
    while pretrained != "coco" and scale * subsampled > 1.5 * min(image_shape[1:]):
        scale /= 2
    return scale
