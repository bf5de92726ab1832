"""The networks that detectors stand on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlkd_env.models import create_model
from rlkd_env.models.taps.features import classifier_of, feature_shapes, forward_with_features

GREY = (1, 64, 64)

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

SMALL = {"fpn_channels": 16, "head_width": 16, "roi_size": 3}


def detector(
    backbone: str = "cnn4", classes: int = 3, shape: tuple[int, int, int] = GREY, **options: object
) -> nn.Module:
    torch.manual_seed(0)
    return create_model(f"fasterrcnn/{backbone}", classes, shape, **{**SMALL, **options})


@pytest.mark.slow
@pytest.mark.parametrize("backbone", STRIDES)
def test_every_backbone_trains_and_detects(backbone: str) -> None:
    network = detector(backbone)
    assert network.backbone.strides == STRIDES[backbone]
    assert classifier_of(network).out_features == 4
    losses = network.train()(torch.randn(2, *GREY), TARGETS)
    sum(losses.values()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without  # nothing is left of what comes after the last stage
    _, features = forward_with_features(network.eval(), torch.randn(2, *GREY))
    assert [tuple(stage.shape) for stage in features.stages] == [(2, 16, 64 // s, 64 // s) for s in STRIDES[backbone]]
    assert features.pooled.shape[1] == 16
    assert feature_shapes(network, torch.randn(1, *GREY)).pooled == 16
