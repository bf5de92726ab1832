"""A network that sees images normalised otherwise than they are given."""

from __future__ import annotations

import torch
from torch import nn

from rlkd_env.data import Preprocessing
from rlkd_env.data.normalization import NORMALIZATIONS, Constants
from rlkd_env.models import create_model
from rlkd_env.models.engine import choose_engine
from rlkd_env.models.normalization import Renormalized
from rlkd_env.models.taps.features import forward_with_features

GIVEN: Constants = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_it_sees_its_own_constants() -> None:
    pixels = torch.rand(4, 3, 8, 8)
    network = Renormalized(nn.Identity(), GIVEN, NORMALIZATIONS["imagenet"])
    found = network(Preprocessing(*GIVEN).normalize(pixels))
    torch.testing.assert_close(found, Preprocessing(*NORMALIZATIONS["imagenet"]).normalize(pixels))


def test_its_features_are_those_of_the_network_and_its_batch_norms_fold() -> None:
    torch.manual_seed(0)
    inner = create_model("resnet8", 4, (3, 16, 16)).eval()
    network = Renormalized(inner, GIVEN, NORMALIZATIONS["imagenet"]).eval()
    images = torch.rand(2, 3, 16, 16)
    renormalised = images * network.scale + network.shift
    (logits, features), (expected, own) = (
        forward_with_features(network, images),
        forward_with_features(inner, renormalised),
    )
    assert torch.equal(logits, expected)
    assert all(torch.equal(one, other) for one, other in zip(features.stages, own.stages, strict=True))
    folded = choose_engine(torch.device("cpu"), inner).freeze(network, (3, 16, 16))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
