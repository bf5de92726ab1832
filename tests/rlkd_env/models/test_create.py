"""Names of networks: ours, torchvision's, and paths of the user's factories."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rlkd_env.errors import UsageError
from rlkd_env.models import check_model, create_model, file_stem
from rlkd_env.models.create import is_same_model
from rlkd_env.models.taps.features import Taps, forward_with_features, taps_of

USER_CODE = """
import torch
from torch import nn
from rlkd_env.models.taps.features import Taps

class Net(nn.Module):
    def __init__(self, num_classes, image_shape, width=8):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[0], width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(width, num_classes)
    def forward(self, images):
        return self.head(self.act(self.conv(images)).mean((2, 3)))

def tapped(num_classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, num_classes))
    network.__dict__["taps"] = Taps((), (), "3")
    return network

def ten():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def open_minded(kind, **more):
    assert kind == "small"
    return nn.Sequential(nn.Flatten(), nn.Linear(64, more.pop("num_classes")), *more.pop("end", []))

def failing(num_classes):
    raise ValueError("it is Monday")

def softened(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes), nn.LogSoftmax(-1))

def unclassified(num_classes):
    return nn.Identity()

class ValueDependent(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
    def forward(self, images):
        if images.sum() > 1:
            images = -images
        return self.head(images.flatten(1))

def text():
    return "not a network"

CONSTANT = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user_networks.py").write_text(USER_CODE)
    (tmp_path / "broken_networks.py").write_text("raise RuntimeError('no luck')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_networks", raising=False)
    return "user_networks"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt56", "unknown network 'resnt56'. Did you mean 'resnet56'.*wrn_16_2.*torchvision/resnet50"),
        ("efficientnetb0", "Did you mean 'efficientnet_b0'"),
        ("torchvision/resnet5", "unknown torchvision network 'resnet5'. Did you mean 'resnet50'"),
        ("no_such_module:make", "'no_such_module' cannot be imported"),
        ("broken_networks:make", "cannot be imported .no luck."),
        ("user_networks:missing", "has no 'missing'"),
        ("user_networks:CONSTANT", "'CONSTANT' is no function or class"),
    ],
)
def test_unknown_names_are_told_early(name: str, message: str, user_module: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_model(name)
    with pytest.raises(UsageError, match=message):
        create_model(name, 10, (3, 32, 32))


@pytest.mark.parametrize("name", ["resnet8", "torchvision/resnet18", "resnet34", "user_networks:Net"])
def test_names_of_all_kinds_are_known(name: str, user_module: str) -> None:
    check_model(name)


@pytest.mark.slow
def test_our_names_come_before_torchvisions() -> None:
    with torch.device("meta"):
        assert type(create_model("vgg11", 10, (3, 32, 32))).__module__ == "rlkd_env.models.classifiers.vgg"
        assert type(create_model("torchvision/vgg11", 10, (3, 32, 32))).__module__ == "torchvision.models.vgg"
        assert type(create_model("resnet50", 10, (3, 32, 32))).__module__ == "torchvision.models.resnet"


def test_our_networks_know_no_options_but_taps() -> None:
    with pytest.raises(UsageError, match="has no option 'dropout'"):
        create_model("resnet8", 10, (3, 32, 32), dropout=0.1)
    network = create_model("resnet8", 10, (3, 32, 32), stages="layer1.0.relu1, layer3")
    assert taps_of(network) == Taps(("layer1.0.relu1", "layer3"), (), "fc")
    with pytest.raises(UsageError, match="no module 'layer9'"):
        create_model("resnet8", 10, (3, 32, 32), stages=("layer9",))
    with pytest.raises(UsageError, match="3 stages in its taps, but 1 pre-activations"):
        create_model("resnet8", 10, (3, 32, 32), preactivations="layer1.0.relu")


@pytest.mark.parametrize(("classes", "shape"), [(0, (3, 32, 32)), (10, (3, 0, 32)), (10, (32, 32))])
def test_impossible_data_is_refused(classes: int, shape: tuple) -> None:
    with pytest.raises(UsageError, match="no network has"):
        create_model("mlp12", classes, shape)


@pytest.mark.slow
def test_torchvision_takes_options_but_no_weights() -> None:
    network = create_model("torchvision/mobilenet_v3_small", 5, (3, 32, 32), dropout=0.7)
    assert network.classifier[2].p == 0.7
    for option in ("weights", "pretrained"):
        with pytest.raises(UsageError, match="created untrained"):
            create_model("torchvision/resnet18", 5, (3, 32, 32), **{option: "DEFAULT"})
    with pytest.raises(UsageError, match="torchvision's resnet18 cannot be built"):
        create_model("torchvision/resnet18", 5, (3, 32, 32), colour="red")


def test_torchvision_networks_take_grey_images() -> None:
    network = create_model("torchvision/squeezenet1_1", 5, (1, 64, 64)).eval()
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 5)


@pytest.mark.slow
def test_torchvision_networks_refuse_images_that_they_cannot_take() -> None:
    with pytest.raises(UsageError, match="AlexNet cannot take images of shape"):
        create_model("torchvision/alexnet", 10, (3, 16, 16))
    with pytest.raises(UsageError, match="vit_b_16 cannot be built for images of shape"):
        create_model("torchvision/vit_b_16", 10, (3, 20, 20))


def test_a_users_class_gets_what_its_signature_takes(user_module: str) -> None:
    network = create_model(f"{user_module}:Net", 4, (2, 8, 8), width=16)
    assert network(torch.zeros(3, 2, 8, 8)).shape == (3, 4)
    assert taps_of(network) == Taps(("act",), ("act",), "head")
    _, features = forward_with_features(network, torch.randn(3, 2, 8, 8))
    assert torch.equal(features.preactivations[0].relu(), features.stages[0])
    assert (features.preactivations[0] < 0).any()  # its ReLU worked in place
    with pytest.raises(UsageError, match="unexpected keyword argument 'depth'"):
        create_model(f"{user_module}:Net", 4, (2, 8, 8), depth=16)


def test_a_users_function_may_take_nothing_and_bring_its_own_taps(user_module: str) -> None:
    assert taps_of(create_model(f"{user_module}:tapped", 10, (1, 8, 8))) == Taps((), (), "3")
    assert taps_of(create_model(f"{user_module}:ten", 10, (1, 8, 8))).classifier == "1"
    with pytest.raises(UsageError, match="returns 10 logits, but the data has 100 classes"):
        create_model(f"{user_module}:ten", 100, (1, 8, 8))


def test_a_users_network_may_look_at_values(user_module: str) -> None:
    """Its forward cannot run on the meta device."""
    network = create_model(f"{user_module}:ValueDependent", 10, (1, 8, 8)).train()
    assert taps_of(network).classifier == "head"
    assert network.training


def test_a_users_network_without_a_final_linear_layer_works_but_has_no_taps(user_module: str) -> None:
    network = create_model(f"{user_module}:softened", 10, (1, 8, 8))
    with pytest.raises(UsageError, match="names no taps, and none were found"):
        taps_of(network)
    with pytest.raises(UsageError, match="classifier of the network Sequential was not found"):
        create_model(f"{user_module}:softened", 10, (1, 8, 8), stages=())
    assert taps_of(create_model(f"{user_module}:softened", 10, (1, 8, 8), classifier="1")).classifier == "1"


@pytest.mark.parametrize(
    ("factory", "message"),
    [("text", "gave a str, not a torch.nn.Module"), ("unclassified", "does not return logits .N, classes.")],
)
def test_what_is_no_network_is_refused(factory: str, message: str, user_module: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(f"{user_module}:{factory}", 10, (1, 8, 8))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("MobileNetV2", "mobilenet_v2_half", True),
        ("torchvision/resnet50", "resnet50", True),
        ("torchvision/vgg11", "vgg11", False),  # ours and torchvision's
        ("a.b:make", "a.b:make", True),
        ("resnet8", "resnet14", False),
    ],
)
def test_several_names_may_stand_for_one_network(first: str, second: str, same: bool) -> None:
    assert is_same_model(first, second) is same
    assert is_same_model(second, first) is same


def test_names_become_parts_of_file_names() -> None:
    assert file_stem("torchvision/resnet50") == "torchvision-resnet50"
    assert file_stem("a.b:Net") == "a.b-Net"


def test_a_factory_with_further_keywords_gets_the_number_of_classes(user_module: str) -> None:
    network = create_model(f"{user_module}:open_minded", 7, (1, 8, 8), kind="small")
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 7)


def test_a_factory_that_fails_is_told_of_in_a_line(user_module: str) -> None:
    with pytest.raises(UsageError, match=r"failing' cannot be made with num_classes: ValueError: it is Monday"):
        create_model(f"{user_module}:failing", 7, (1, 8, 8))
