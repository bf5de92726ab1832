"""Our vision transformers: sizes, taps, files, and the two heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stored_networks import same_weights
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, load_student, save_network
from rlkd_env.models.stacking import StackedNetworks
from rlkd_env.models.taps.features import feature_shapes
from rlkd_env.models.transformers.two_heads import has_two_heads, reading_heads
from rlkd_env.models.transformers.vit import Block

PARAMETERS = {"vit64_patch4": 208_010, "deit64_patch4": 208_724, "vit192_patch4": 5_362_570}
"""On colour images of 32 by 32 pixels with ten classes; per block 12 · width² + 13 · width."""


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_sizes(name: str, parameters: int) -> None:
    network = create_model(name, 10, (3, 32, 32))
    assert sum(one.numel() for one in network.parameters()) == parameters


@pytest.mark.parametrize(("name", "shape"), [("vit64_patch4", (3, 32, 32)), ("deit64_patch2", (1, 8, 12))])
def test_maps_are_the_patches(name: str, shape: tuple[int, int, int]) -> None:
    network = create_model(name, 10, shape)
    shapes = feature_shapes(network, torch.randn(2, *shape))
    grid = tuple(side // int(name[-1]) for side in shape[1:])
    assert shapes.stages == ((64, *grid),) * 3
    assert shapes.pooled == 64


def test_a_block_is_attention_and_a_hidden_layer_as_torch_has_them() -> None:
    torch.manual_seed(0)
    block, tokens = Block(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": block.qkv.weight,
            "in_proj_bias": block.qkv.bias,
            "out_proj.weight": block.projection.weight,
            "out_proj.bias": block.projection.bias,
        }
    )
    normed = block.norm1(tokens)
    expected = tokens + attention(normed, normed, normed, need_weights=False)[0]
    torch.testing.assert_close(block(tokens), expected + block.hidden(block.norm2(expected)))


def test_places_are_told_apart_and_the_logits_are_the_mean_of_both_heads() -> None:
    torch.manual_seed(0)
    network, images = create_model("deit64_patch4", 10, (1, 16, 16)), torch.randn(3, 1, 16, 16)
    for head in (network.head, network.head_dist):
        nn.init.normal_(head.weight)
    with reading_heads(network) as heads:
        logits = network(images)
    torch.testing.assert_close(logits, (heads.of_class_token + heads.of_distillation_token) / 2)
    assert not torch.allclose(heads.of_class_token, heads.of_distillation_token)
    assert not torch.allclose(network(images.flip(-1)), logits)
    assert torch.equal(network.eval()(images), logits)
    assert has_two_heads(network)
    assert not has_two_heads(create_model("vit64_patch4", 10, (1, 16, 16)))


@pytest.mark.parametrize("shape", [(1, 28, 30), (3, 4, 4)])
def test_images_that_cannot_be_divided_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be divided into patches of 4"):
        create_model("vit64_patch4", 10, shape)


def test_a_file_makes_it_again(tmp_path: Path) -> None:
    network = create_model("deit64_patch2", 10, (1, 8, 8))
    save_network(tmp_path / "student.safetensors", network.state_dict(), "deit64_patch2", 10, (1, 8, 8))
    assert same_weights(network, load_student(tmp_path))


@pytest.mark.slow
def test_several_are_computed_as_one() -> None:
    networks = [create_model("vit64_patch4", 10, (1, 8, 8)).double() for _ in range(3)]
    images = torch.randn(12, 1, 8, 8, dtype=torch.float64)
    expected = torch.cat([network(part) for network, part in zip(networks, images.chunk(3), strict=True)])
    torch.testing.assert_close(StackedNetworks(networks)(images), expected)
