"""Small detectors, and images with objects for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.models import create_model

TARGETS = [
    {"boxes": torch.tensor([[4.0, 6.0, 24.0, 20.0], [30.0, 30.0, 50.0, 60.0]]), "labels": torch.tensor([1, 3])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


STRIDES = {
    "resnet8": (2, 4),
    "resnet20": (2, 4),
    "resnet18_cifar": (2, 4, 8),
    "wrn_16_1": (2, 4),
    "cnn8": (2, 4),
    "cnn32": (2, 4),
    "vgg8": (2, 4, 8, 16),
    "shufflenet_v1": (2, 4, 8),
    "shufflenet_v2": (2, 4, 8),
    "mobilenet_v2_half": (2, 4, 8, 16),
    "resnet18": (4, 8, 16, 32),
    "resnet34": (4, 8, 16, 32),
    "mobilenet_v2": (4, 8, 16, 32),
    "mobilenet_v3_large": (4, 8, 16, 32),
    "mobilenet_v3_small": (4, 8, 16, 32),
}


GREY = (1, 64, 64)


SMALL = {"fpn_channels": 16, "head_width": 16, "roi_size": 3}


COLOUR = (3, 64, 64)


def detector(
    backbone: str = "cnn4", classes: int = 3, shape: tuple[int, int, int] = GREY, **options: object
) -> nn.Module:
    torch.manual_seed(0)
    return create_model(f"fasterrcnn/{backbone}", classes, shape, **{**SMALL, **options})


def detect(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.eval().roi_heads.score_thresh = 0.0
    with torch.no_grad():
        return [value for found in network(images) for value in found.values()]
