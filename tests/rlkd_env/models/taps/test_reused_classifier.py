"""Networks that end in a projector and another network's classifier: of every family, and in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stored_networks import same_weights
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, load_network, load_student, save_network
from rlkd_env.models.classifiers.own_networks import MODELS
from rlkd_env.models.taps.features import classifier_of, feature_shapes, taps_of
from rlkd_env.models.taps.reused_classifier import FrozenLinear, Head, Projector

SHAPE = (3, 32, 32)
FLAT = {"digits_cnn", *(name for name in MODELS if name.startswith(("mlp", "vit", "deit")))}
TORCHVISION = ["mobilenet_v2", "squeezenet1_1"]
HEAD = {"width": 24, "factor": 3, "size": [2, 2]}


def changed(name: str, **options: Any) -> nn.Module:
    return create_model(name, 10, SHAPE, reused_classifier=HEAD, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FLAT] + ["torchvision/shufflenet_v2_x0_5"])
def test_networks_of_every_family_take_it_and_all_that_is_left_is_trained(name: str) -> None:
    torch.manual_seed(0)
    network, images = changed(name), torch.randn(4, *SHAPE)
    shapes = feature_shapes(network, images)
    assert (shapes.stages[-1], shapes.pooled, shapes.pools_last_map) == ((24, 2, 2), 24, True)
    plain = create_model(name, 10, SHAPE)
    assert shapes.stages[:-1] == feature_shapes(plain, images).stages[:-1]
    network.train()(images).square().sum().backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == []
    assert isinstance(classifier_of(network), FrozenLinear)
    assert len(taps_of(network).preactivations) == len(taps_of(plain).preactivations)


@pytest.mark.parametrize("name", sorted(FLAT - {"vit192_patch2", "deit192_patch2"}))
def test_networks_that_do_not_pool_a_map_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"no feature maps|does not take the mean of its last map"):
        changed(name)


def test_transformers_and_networks_with_another_classifier_are_refused() -> None:
    for name, message in (("vit_b_16", "does not take the mean"), ("squeezenet1_1", "is no linear layer")):
        with pytest.raises(UsageError, match=message):
            create_model(name, 10, (3, 64, 64), reused_classifier=HEAD)
    with pytest.raises(UsageError, match="cannot have the classifier of another network"):
        changed("fasterrcnn/resnet8")


def test_a_file_makes_it_again(tmp_path: Path) -> None:
    network, path = changed("resnet8").eval(), tmp_path / "student.safetensors"
    save_network(path, network.state_dict(), "resnet8", 10, SHAPE, {"reused_classifier": HEAD})
    for loaded in (load_student(tmp_path), load_network(path, 10, SHAPE, model="resnet8")):
        assert same_weights(network, loaded)
        images = torch.randn(3, *SHAPE)
        assert torch.equal(loaded(images), network(images))
        assert not loaded.training


@pytest.mark.slow
def test_a_file_of_torchvisions_is_compared_before_it_is_built(tmp_path: Path) -> None:
    network, path = changed("torchvision/shufflenet_v2_x0_5"), tmp_path / "student.safetensors"
    save_network(path, network.state_dict(), "torchvision/shufflenet_v2_x0_5", 10, SHAPE, {"reused_classifier": HEAD})
    assert same_weights(network, load_student(tmp_path))
    save_network(path, network.state_dict(), "torchvision/shufflenet_v2_x1_0", 10, SHAPE, {"reused_classifier": HEAD})
    with pytest.raises(UsageError, match="has shape"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (3, "not to be given"),
        ({}, "not to be given"),
        ({**HEAD, "more": 1}, "not to be given"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": "many"}, "width"),
        ({"width": 2**31, "factor": 1}, "whose weights it does not hold"),
        ({"width": 24, "factor": 25}, "a factor of 25 leaves none of 24 channels"),
        ({**HEAD, "size": [2]}, "must be a height and a width"),
        ({**HEAD, "size": [2, -1]}, "must be a height and a width"),
        ({**HEAD, "width": 30}, "shape"),
    ],
)
def test_a_damaged_description_is_a_line(option: Any, message: str, tmp_path: Path) -> None:
    network = changed("resnet8")
    save_network(
        tmp_path / "student.safetensors", network.state_dict(), "resnet8", 10, SHAPE, {"reused_classifier": option}
    )
    with pytest.raises(UsageError, match=message) as told:
        load_student(tmp_path)
    assert "\n" not in str(told.value)


def test_a_head_says_what_it_is() -> None:
    assert Head.read(HEAD) == Head(24, 3, (2, 2))
    assert Head.read(Head(24).option) == Head(24, 2, None)


@pytest.mark.parametrize(("factor", "parameters"), [(2, 214_016), (8, 26_240)])
def test_a_projector_has_as_many_parameters_as_the_documents_say(factor: int, parameters: int) -> None:
    projector = Projector(256, Head(256, factor))  # 256² / f + 9 · (256 / f)² + 256² / f, and batch norms
    assert sum(one.numel() for one in projector.parameters()) == parameters
