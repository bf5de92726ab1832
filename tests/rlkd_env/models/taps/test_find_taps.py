"""Taps that are found: on torchvision's networks, whose structure is known."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams

from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.taps.features import Taps, classifier_of, forward_from_stage, forward_with_features, taps_of
from rlkd_env.models.taps.find_taps import add_taps

NAMES = torchvision.models.list_models(module=torchvision.models)
FAMILIES = tuple({re.match("[a-z]+", name).group(): name for name in sorted(NAMES, reverse=True)}.values())
"""The first of those whose names begin with the same letters."""

VGG_ACTIVATIONS = ("features.1", "features.4", "features.9", "features.14", "features.19")


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RegNets compute their widths, for which they use tensors, while their weights have no memory."""
    original = BlockParams.from_init_params.__func__

    def on_the_processor(cls: type, *arguments: object, **options: object) -> BlockParams:
        with torch.device("cpu"):
            return original(cls, *arguments, **options)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_the_processor))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_of_torchvision_is_created_with_taps(name: str, without_memory: None) -> None:
    """Which checks its logits on the way."""
    with torch.device("meta"):
        taps = taps_of(create_model(f"torchvision/{name}", 7, (3, 224, 224)))
    assert len(taps.stages) == 1 if name.startswith("vit") else 3 <= len(taps.stages) <= 5
    assert len(taps.preactivations) in (0, len(taps.stages))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_torchvisions_networks_give_plain_logits_and_maps_that_shrink_in_training(
    name: str, without_memory: None
) -> None:
    with torch.device("meta"):
        network = create_model(f"torchvision/{name}", 7, (3, 224, 224)).train()
        logits, features = forward_with_features(network, torch.zeros(2, 3, 224, 224))
    assert logits.shape == (2, 7)
    assert features.pooled.dim() == 2
    sides = [stage.shape[-1] for stage in features.stages]
    assert all(2 <= following <= 2 / 3 * side for side, following in pairwise(sides))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "taps"),
    [
        (
            "resnet50",
            Taps(
                ("relu", "layer1", "layer2", "layer3", "layer4"),
                ("relu", "layer1.2.relu", "layer2.3.relu", "layer3.5.relu", "layer4.2.relu"),
                "fc",
            ),
        ),
        ("vgg11", Taps(VGG_ACTIVATIONS, VGG_ACTIVATIONS, "classifier.6")),
        (
            "mobilenet_v2",
            Taps(("features.1", "features.3", "features.6", "features.13", "features"), (), "classifier.1"),
        ),
        ("shufflenet_v2_x0_5", Taps(("conv1", "stage2", "stage3", "conv5"), (), "fc")),
        ("squeezenet1_1", Taps(("features.1", "features.4", "features.7", "features"), (), "classifier.1")),
        ("swin_v2_b", Taps(("features.1", "features.3", "features.5", "permute"), (), "head")),
        ("vit_b_32", Taps(("encoder",), (), "heads.head")),
    ],
)
def test_taps_are_where_the_maps_shrink(name: str, taps: Taps) -> None:
    """Not inside a block that shrinks the map, where a branch still works at the larger size."""
    with torch.device("meta"):
        assert taps_of(create_model(f"torchvision/{name}", 10, (3, 224, 224))) == taps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 32), ("mobilenet_v3_small", 32), ("efficientnet_b0", 32), ("squeezenet1_1", 48)]
)
def test_found_taps_show_what_they_promise(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = create_model(f"torchvision/{name}", 10, (3, size, size)).eval()
    images, others = torch.randn(2, 2, 3, size, size)
    with torch.no_grad():
        logits, features = forward_with_features(network, images)
        for before, after in zip(features.preactivations, features.stages, strict=False):
            assert (before < 0).any()  # torchvision's ReLUs would have overwritten it
            assert torch.equal(before.relu(), after)
        for stage, kept in enumerate(features.stages):
            again = forward_from_stage(network, others, stage, lambda _, kept=kept: kept)
            torch.testing.assert_close(again, logits)
        if name != "squeezenet1_1":  # which pools after its classifier
            torch.testing.assert_close(classifier_of(network)(features.pooled), logits)
    assert len(features.preactivations) == (5 if name == "resnet18" else 0)


def test_the_search_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).train()
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    draws = torch.get_rng_state()
    assert taps_of(add_taps(network, 5, (3, 8, 12))) == Taps(("2",), ("2",), "5")
    assert torch.equal(torch.get_rng_state(), draws)
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


class Remembering(nn.Module):
    """Keeps a tensor of its first forward, as networks with position codes do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)
        self.code: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.code is None:
            self.code = torch.ones_like(images[0])
        return self.linear((images + self.code).flatten(1))


def test_the_search_leaves_no_memory_in_the_network() -> None:
    network = add_taps(Remembering(), 5, (3, 2, 2))
    assert taps_of(network).classifier == "linear"
    assert network.code is None
    assert network(torch.zeros(2, 3, 2, 2)).device.type == "cpu"


def test_an_attribute_taps_of_another_kind_is_not_overwritten() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    network.taps = nn.Identity()
    with pytest.raises(UsageError, match="an attribute taps of type Identity, not Taps"):
        add_taps(network, 5, (3, 2, 2))


def test_a_network_of_fixed_size_is_searched_at_its_size() -> None:
    """And a map before the first weights, as of a normalisation of images, is no stage."""
    network = nn.Sequential(
        nn.Dropout(), nn.Conv2d(1, 2, 3, padding=1), nn.ELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 4 * 4, 5)
    )
    assert taps_of(add_taps(network, 5, (1, 8, 8))) == Taps(("2",), ("2",), "5")


def vision_transformer(package: str, channels: int) -> nn.Module:
    """Two blocks of 48 channels on a grid of 4 by 4 patches."""
    if package == "torchvision":
        network = torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 64, num_classes=7)
        return add_taps(network, 7, (channels, 32, 32))
    pytest.importorskip("timm")
    options = {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 4}
    return create_model("timm/vit_tiny_patch16_224", 7, (channels, 32, 32), **options)


@pytest.mark.parametrize(("package", "channels"), [("torchvision", 3), ("timm", 3), ("timm", 1)])
def test_the_tokens_of_a_vision_transformer_are_maps(package: str, channels: int) -> None:
    network, images = vision_transformer(package, channels).eval(), torch.rand(2, channels, 32, 32)
    logits, features = forward_with_features(network, images)
    assert torch.equal(logits, network(images))
    assert [tuple(stage.shape) for stage in features.stages] == [(2, 48, 4, 4)]
    assert features.pooled.shape == (2, 48)
    # They are those of the patches: the logits follow from the class token alone, which is not among them.
    other = forward_from_stage(network, images, 0, torch.zeros_like)
    assert torch.allclose(other, logits, atol=1e-5)


def test_maps_with_the_channels_last_are_turned() -> None:
    swin = torchvision.models.SwinTransformer([4, 4], 12, [1, 1, 1], [1, 2, 2], [4, 4], num_classes=7)
    network = add_taps(swin, 7, (3, 64, 64))
    images = torch.rand(2, 3, 64, 64)
    logits, features = forward_with_features(network.eval(), images)
    assert [tuple(stage.shape[1:]) for stage in features.stages] == [(12, 16, 16), (24, 8, 8), (48, 4, 4)]
    assert torch.allclose(forward_from_stage(network, images, 1, lambda maps: maps), logits)
    assert not torch.allclose(forward_from_stage(network, images, 1, torch.zeros_like), logits)
