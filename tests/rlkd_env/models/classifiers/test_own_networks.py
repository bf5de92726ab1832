"""Our own networks: sizes and layouts of the field, taps, gradients, image sizes."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, vmap

from rlkd_env.errors import UsageError
from rlkd_env.models import MODELS, create_model
from rlkd_env.models.taps.features import classifier_of, forward_from_stage, forward_with_features, taps_of

FIELD = {
    "resnet8": (83_892, "99cb0c0b2ea3"),
    "resnet14": (181_108, "629933907d57"),
    "resnet20": (278_324, "0386434ca6f3"),
    "resnet32": (472_756, "9e5592f61f00"),
    "resnet44": (667_188, "df3dce284c7a"),
    "resnet56": (861_620, "fa692cabb2e3"),
    "resnet110": (1_736_564, "9ca5a9542fb3"),
    "resnet8x4": (1_233_540, "b2ead61a142e"),
    "resnet32x4": (7_433_860, "99154b2aea1a"),
    "wrn_16_1": (180_916, "b4de1d786e12"),
    "wrn_16_2": (703_284, "2266f04469bf"),
    "wrn_40_1": (569_780, "01abc5646d8c"),
    "wrn_40_2": (2_255_156, "595ec0db20d1"),
    "vgg8": (3_965_028, "7f85b8479109"),
    "vgg11": (9_277_284, "6053995f6332"),
    "vgg13": (9_462_180, "5778ceb5832e"),
    "vgg16": (14_774_436, "0729229b1855"),
    "vgg19": (20_086_692, "e27ccb5da4f3"),
    "mobilenet_v2_half": (812_836, "54501c9a7e31"),
    "shufflenet_v1": (949_258, "1282e767b3e9"),
    "shufflenet_v2": (1_355_528, "9b7750ae0328"),
    "resnet18_cifar": (11_220_132, "051a1cb098ad"),
    "resnet50_cifar": (23_705_252, "d5367c1bcc2c"),
}
"""Parameters with 100 classes, and a digest of the names and shapes in the state dict, both computed with the code of
HobbitLong/RepDistiller at commit b84f547. mdistiller has the same."""

STAGES = {
    "resnet20": [(16, 32), (32, 16), (64, 8)],
    "resnet8x4": [(64, 32), (128, 16), (256, 8)],
    "wrn_16_2": [(32, 32), (64, 16), (128, 8)],
    "vgg8": [(128, 16), (256, 8), (512, 4), (512, 4)],
    "mobilenet_v2_half": [(12, 16), (16, 8), (48, 4), (160, 2)],
    "shufflenet_v1": [(240, 16), (480, 8), (960, 4)],
    "shufflenet_v2": [(116, 16), (232, 8), (464, 4)],
    "resnet18_cifar": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet50_cifar": [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    "cnn8": [(8, 32), (16, 16), (32, 8)],
    "digits_cnn": [(32, 32), (64, 32)],
    "mlp12": [],
}
"""Channels and height of the stage maps of 32 by 32 images: RepDistiller's, but for the last three networks."""

SMALL = ("resnet8", "resnet8x4", "wrn_16_1", "vgg8", "mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2", "cnn8")


def randomised(name: str, num_classes: int = 10, shape: tuple[int, int, int] = (3, 32, 32)) -> torch.nn.Module:
    """A network whose batch normalisations are none of the identity that they start as."""
    torch.manual_seed(0)
    network = create_model(name, num_classes, shape)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0, 0.2)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("name", FIELD)
def test_networks_have_the_fields_parameters_under_the_fields_names(name: str) -> None:
    with torch.device("meta"):
        network = create_model(name, 100, (3, 32, 32))
    parameters, digest = FIELD[name]
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    names = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    if name.endswith("_cifar"):  # the field's ResNetv2, whose names loading translates
        names = {
            key.replace(".downsample.", ".shortcut.").replace("fc.", "linear."): shape for key, shape in names.items()
        }
    lines = "\n".join(sorted(f"{key} {shape}" for key, shape in names.items()))
    assert hashlib.sha256(lines.encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(("alias", "name"), [("MobileNetV2", "mobilenet_v2_half"), ("ShuffleV1", "shufflenet_v1")])
def test_the_fields_names_are_aliases(alias: str, name: str) -> None:
    assert MODELS[alias] is MODELS[name]


@pytest.mark.parametrize(
    ("name", "parameters"), [("cnn4", 1_702), ("cnn8", 6_274), ("cnn32", 94_186), ("cnn48", 210_394)]
)
def test_small_networks_have_the_documented_size(name: str, parameters: int) -> None:
    network = create_model(name, 10, (1, 28, 28))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_taps_show_what_they_promise(name: str) -> None:
    network = randomised(name)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = forward_with_features(network, images)
        plain = network(images)
    assert torch.equal(logits, plain)
    assert [tuple(stage.shape) for stage in features.stages] == [(2, width, side, side) for width, side in STAGES[name]]
    if name != "mobilenet_v2_half":  # its stages are linear
        assert len(features.preactivations) == len(features.stages)
    for before, after in zip(features.preactivations, features.stages, strict=False):
        assert (before < 0).any()
        assert torch.equal(F.relu(before), after)
    assert features.pooled.dim() == 2
    torch.testing.assert_close(classifier_of(network)(features.pooled), logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STAGES if STAGES[name]])
def test_a_replaced_stage_decides_the_logits(name: str) -> None:
    """What follows a stage sees nothing else: images do not matter once its map is fixed."""
    network = randomised(name)
    first, second = torch.randn(2, 2, 3, 32, 32)
    for stage in range(len(STAGES[name])):
        with torch.no_grad():
            logits, features = forward_with_features(network, first)
            again = forward_from_stage(network, second, stage, lambda _, kept=features.stages[stage]: kept)
        torch.testing.assert_close(again, logits)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = create_model(name, 10, (3, 32, 32)).train()
    logits, features = forward_with_features(network, torch.randn(4, 3, 32, 32))
    (logits.square().sum() + sum(stage.square().mean() for stage in features.stages)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 17, 40), (3, 8, 8), (3, 64, 64)])
def test_networks_take_images_of_other_shapes(name: str, shape: tuple[int, int, int]) -> None:
    network = create_model(name, 7, shape).eval()
    with torch.no_grad():
        logits, features = forward_with_features(network, torch.zeros(2, *shape))
    assert logits.shape == (2, 7)
    heights = [stage.shape[-2] for stage in features.stages]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize(("name", "smallest"), [("vgg13", 8), ("cnn8", 4), ("digits_cnn", 2)])
def test_images_that_are_too_small_are_refused(name: str, smallest: int) -> None:
    create_model(name, 10, (1, smallest, smallest))
    with pytest.raises(UsageError, match=f"at least {smallest} by {smallest} pixels"):
        create_model(name, 10, (1, smallest, smallest - 1))


@pytest.mark.parametrize("name", ["resnet8", "cnn8", "shufflenet_v2"])
def test_networks_work_under_functional_call_and_vmap(name: str) -> None:
    network = randomised(name, shape=(1, 16, 16))
    images = torch.randn(3, 1, 16, 16)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def logits_of(image: torch.Tensor) -> torch.Tensor:
        return functional_call(network, tensors, (image[None],))[0]

    torch.testing.assert_close(vmap(logits_of)(images), network(images), rtol=1e-4, atol=1e-5)


def test_the_initial_draws_of_the_digits_networks_are_those_of_their_layers() -> None:
    """Results of earlier seeds stay what they were."""
    torch.manual_seed(5)
    network = create_model("mlp12", 10, (1, 8, 8))
    torch.manual_seed(5)
    hidden, last = torch.nn.Linear(64, 12), torch.nn.Linear(12, 10)
    assert torch.equal(network[1].weight, hidden.weight)
    assert torch.equal(network[3].bias, last.bias)
    assert taps_of(network).classifier == "3"


def test_convolutions_start_with_the_variance_of_their_fan_out() -> None:
    torch.manual_seed(0)
    weight = create_model("resnet32x4", 10, (3, 32, 32)).state_dict()["layer3.1.conv1.weight"]
    assert float(weight.std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
