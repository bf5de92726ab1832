"""The networks that detectors stand on."""

from __future__ import annotations

import pytest
import torch
from small_detectors import GREY, STRIDES, TARGETS, detector

from rlkd_env.models.taps.features import classifier_of, feature_shapes, forward_with_features


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
