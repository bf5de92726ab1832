"""torchvision's weights for detectors, and how they are fitted to other images and classes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection._utils import overwrite_eps

from rlkd_env.errors import UsageError
from rlkd_env.models.weights import load_shared_weights

COCO = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
PRETRAINED = ("none", "backbone", "coco")
COCO_BACKBONE = "resnet50"
"""The backbone whose published detector has the usual pyramid levels."""
PREDICTOR = "roi_heads.box_predictor."


def fetch(weights: Any, name: str) -> dict[str, Tensor]:
    """Return torchvision's published weights of a network from PyTorch's download cache or from the internet."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, EOFError, HTTPException, RuntimeError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"torchvision's weights of {name} cannot be loaded here ({reason}). Train from scratch (pretrained=none"
            f", rlkd teacher), or load {weights.url} elsewhere and put it into {torch.hub.get_dir()}/checkpoints; "
            "a whole detector's file can be named too (--teacher file.pth --teacher-model fasterrcnn/resnet50)"
        ) from None


def fit_weights(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights to those of the same network for grey images or for COCO's 80 classes.

    The first convolution's weights are summed over the colours, which equals a grey image in three channels. COCO
    numbers its 80 classes up to 90, so published predictors have 91 logits; those of the 80 classes are kept.
    """
    fitted = dict(tensors)
    used = [number for number, name in enumerate(COCO.meta["categories"]) if name != "N/A"]
    for name, tensor in tensors.items():
        wanted = expected.get(name)
        if wanted is None or tensor.dim() != wanted.dim():
            continue
        if tensor.dim() == 4 and (tensor.shape[1], wanted.shape[1]) == (3, 1):
            fitted[name] = tensor.sum(dim=1, keepdim=True)
        elif name.startswith(PREDICTOR):
            per_class = 4 if "bbox_pred" in name else 1
            if (tensor.shape[0], wanted.shape[0]) == (91 * per_class, 81 * per_class):
                fitted[name] = tensor.unflatten(0, (91, per_class))[used].flatten(0, 1)
    return fitted


def load_coco(detector: nn.Module, backbone: str, is_filled: bool) -> None:
    """Load the weights of torchvision's COCO detector, or only prepare for them if not ``is_filled``.

    The predictor's weights are loaded only into detectors of 90 classes or COCO's 80.
    """
    if backbone != COCO_BACKBONE:
        raise UsageError(f"there are COCO weights only for fasterrcnn/{COCO_BACKBONE}, not for {backbone}")
    overwrite_eps(detector, 0.0)  # these weights were trained with it
    if not is_filled:
        return
    weights = fetch(COCO, f"fasterrcnn/{COCO_BACKBONE}")
    report = load_shared_weights(detector, weights, COCO.url, strict=False)
    unfit = [name for name in (*report.missing, *report.unexpected, *report.wrong_shape) if PREDICTOR not in name]
    if unfit:
        raise UsageError(f"COCO's weights do not fit a detector with these options: {unfit[0]} is different")
