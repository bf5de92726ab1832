"""K stacked networks compute, in training and in evaluation, what each of them computes alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlkd_env.models import create_model
from rlkd_env.models.stacking import StackedNetworks

COUNT, SIZE = 3, 4
"""Networks, and images for each."""


class Concatenating(nn.Module):
    """Appends channels, shuffles and splits them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3)
        self.conv3, self.fc = nn.Conv2d(3, 4, 3, groups=1), nn.Linear(7, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.channel_shuffle(torch.cat([self.conv1(images), self.conv2(images)], 1), 2)
        left, right = maps.chunk(2, dim=1)
        return self.fc(torch.cat([left[:, :, 2:, 2:], self.conv3(F.relu(right))], dim=1).mean([2, 3]))


class Exciting(nn.Module):
    """Multiplies channels by what a small network makes of their means, and adds parameters of several shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.narrow, self.widen = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Linear(2, 4)
        self.scale, self.shift = nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(4, 1, 1))
        self.fc = nn.Linear(4, 5)
        self.register_buffer("offset", torch.tensor([0.5]))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images) * self.scale + self.shift
        squeezed = F.relu(self.narrow(F.adaptive_avg_pool2d(maps, 1))).flatten(1)
        excited = torch.sigmoid(self.widen(squeezed)).view(maps.size(0), maps.shape[1], 1, 1)
        maps = excited * maps
        maps = maps + maps.amax(dim=1, keepdim=True)
        return self.fc(torch.add(maps, maps, alpha=0.5).mean((2, 3)) + self.offset)


class InPlace(nn.Module):
    """Changes its maps in place, and reads what it has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.fc = nn.Linear(4 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        maps += 1.0
        normalised = self.bn(maps)
        self.relu(normalised)
        return self.fc((normalised + maps).reshape(maps.shape[0], -1))


class LooksAtShapes(nn.Module):
    """What torch.fx cannot trace, so that vmap does all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn(self.conv(images)))
        return self.fc(maps.mean((2, 3)) if maps.shape[-1] > 1 else maps.flatten(1))


def body(*layers: nn.Module, channels: int = 4) -> nn.Module:
    """Return layers between a first convolution and a linear layer."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers, *head)


def convolution(**options: Any) -> nn.Module:
    return body(nn.ReLU(), nn.Conv2d(4, 8, 3, **options), nn.Tanh(), channels=8)


def batch_norm(**options: Any) -> nn.Module:
    return body(nn.BatchNorm2d(4, **options), nn.ReLU())


MADE_UP: dict[str, Callable[[], nn.Module]] = {
    "stride": lambda: convolution(stride=2, padding=1),
    "bias": lambda: convolution(bias=False),
    "dilation": lambda: convolution(dilation=2),
    "same": lambda: convolution(padding="same"),
    "groups": lambda: convolution(groups=2),
    "depthwise": lambda: convolution(groups=4, stride=(1, 2)),
    "reflect": lambda: convolution(padding=1, padding_mode="reflect"),
    "circular": lambda: convolution(padding=1, padding_mode="circular"),
    "replicate": lambda: convolution(padding=1, padding_mode="replicate"),
    "first grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)
    ),
    "average of all batches": lambda: batch_norm(momentum=None),
    "no statistics": lambda: batch_norm(track_running_stats=False),
    "not affine": lambda: batch_norm(affine=False, eps=0.1),
    "frozen": lambda: body(nn.BatchNorm2d(4).requires_grad_(False)),
    "normalised images": lambda: nn.Sequential(nn.BatchNorm2d(3), *body()),
    "normalised features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(108, 6), nn.BatchNorm1d(6), nn.ELU(), nn.Linear(6, 5)
    ),
    "pooling": lambda: body(nn.MaxPool2d(2), nn.Hardswish(), nn.AvgPool2d(3, 1, 1)),
    "other norms": lambda: body(nn.GroupNorm(2, 4), nn.PReLU(), nn.LayerNorm(6), nn.Upsample(scale_factor=2)),
    "transposed": lambda: body(nn.ConvTranspose2d(4, 4, 2), nn.SiLU()),
    "fully connected": lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 6), nn.GELU(), nn.Linear(6, 5, bias=False)),
    "concatenating": Concatenating,
    "exciting": Exciting,
    "in place": InPlace,
    "looks at shapes": LooksAtShapes,
}
FAMILIES = {
    "cnn4": (1, 8, 8),
    "resnet8": (3, 8, 8),
    "wrn_16_1": (3, 8, 8),
    "vgg8": (3, 8, 8),
    "digits_cnn": (1, 8, 8),
    "mobilenet_v2_half": (3, 16, 16),
    "shufflenet_v1": (3, 16, 16),
    "shufflenet_v2": (3, 16, 16),
    "torchvision/resnet18": (3, 32, 32),
    "torchvision/densenet121": (3, 32, 32),
    "torchvision/shufflenet_v2_x0_5": (3, 32, 32),
    "torchvision/regnet_y_400mf": (3, 32, 32),
}


def assert_stacked_equals_single(
    create: Callable[[], nn.Module], image_shape: tuple[int, int, int], memory_format: torch.memory_format, updates: int
) -> None:
    """Train networks alone and stacked in float64, and compare all that they are and compute."""
    torch.manual_seed(0)
    networks = [create().double().train().to(memory_format=memory_format) for _ in range(COUNT)]
    stacked = StackedNetworks([copy.deepcopy(network) for network in networks])
    of_one = [torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9) for network in networks]
    of_all = torch.optim.SGD(stacked.weights.parameters(), lr=0.01, momentum=0.9)
    for _ in range(updates):
        images = torch.randn(COUNT * SIZE, *image_shape).double().contiguous(memory_format=memory_format)
        logits = stacked(images)
        alone = torch.cat([network(own) for network, own in zip(networks, images.split(SIZE), strict=True)])
        torch.testing.assert_close(logits, alone, rtol=1e-6, atol=1e-6)
        for optimizers, outputs in (([of_all], logits), (of_one, alone)):
            for optimizer in optimizers:
                optimizer.zero_grad()
            outputs.square().mean(dim=1).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    for number, network in enumerate(networks):
        own = {name: values[number] for name, values in stacked.weights.state_dict().items()}
        torch.testing.assert_close(own, dict(network.state_dict()), rtol=1e-6, atol=1e-6)
    stacked.eval()
    with torch.no_grad():
        images = torch.randn(5, *image_shape).double().contiguous(memory_format=memory_format)
        alone = torch.stack([network.eval()(images) for network in networks])
        torch.testing.assert_close(stacked.forward_shared(images), alone, rtol=1e-6, atol=1e-6)


FORMATS = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)


@FORMATS
@pytest.mark.parametrize("name", MADE_UP)
def test_every_layer_is_stacked(name: str, memory_format: torch.memory_format) -> None:
    assert_stacked_equals_single(MADE_UP[name], (3, 6, 6), memory_format, updates=3)


@pytest.mark.slow
@FORMATS
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_stacked(name: str, memory_format: torch.memory_format) -> None:
    shape = FAMILIES[name]
    # Batch norms of few images blow up rounding errors from update to update.
    assert_stacked_equals_single(lambda: create_model(name, 5, shape), shape, memory_format, updates=1)


class Copies(TorchDispatchMode):
    """Counts the copies of tensors."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.count += name in ("clone", "copy_", "_to_copy", "contiguous")
        return function(*args, **(kwargs or {}))


@FORMATS
@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_positions_of_a_stride_may_be_picked_before_the_convolution(
    monkeypatch: pytest.MonkeyPatch, stride: Any, memory_format: torch.memory_format
) -> None:
    """A GPU computes 1x1 convolutions so."""
    monkeypatch.setattr("rlkd_env.models.stacking.traced._is_slow", lambda layer, _: layer.stride != (1, 1))

    def create() -> nn.Module:
        layers = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, stride), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 5))

    assert_stacked_equals_single(create, (3, 9, 8), memory_format, updates=3)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8"])
def test_channels_last_networks_copy_neither_weights_nor_maps(name: str) -> None:
    networks = [create_model(name, 5, (3, 8, 8)).to(memory_format=torch.channels_last) for _ in range(2)]
    stacked = StackedNetworks(networks, shares_images=True)
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with Copies() as copies:
        stacked(images)
    assert copies.count == 0


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v2_half", "shufflenet_v1"])
def test_no_operation_depends_on_values(name: str) -> None:
    stacked = StackedNetworks([create_model(name, 5, (3, 16, 16)) for _ in range(2)]).to("meta")  # where there are none
    assert stacked(torch.empty(6, 3, 16, 16, device="meta")).shape == (6, 5)


def test_images_that_all_share_are_not_repeated_for_the_first_convolution() -> None:
    networks = [create_model("resnet8", 5, (3, 8, 8)).double() for _ in range(COUNT)]
    stacked, sharing = (StackedNetworks(copy.deepcopy(networks), shares_images=shares) for shares in (False, True))
    images = torch.randn(SIZE, 3, 8, 8).double()
    groups: list[int] = []

    class Groups(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function.overloadpacket.__name__ == "convolution":
                groups.append(args[-1])
            return function(*args, **(kwargs or {}))

    with Groups():
        logits = sharing(images)
    assert groups[:2] == [1, COUNT]
    torch.testing.assert_close(logits, stacked(images.repeat(COUNT, 1, 1, 1)))


def test_fully_connected_networks_need_no_tracing() -> None:
    assert StackedNetworks([MADE_UP["fully connected"]() for _ in range(2)]).is_fully_connected
    assert not StackedNetworks([MADE_UP["normalised features"]() for _ in range(2)]).is_fully_connected


def test_what_draws_random_numbers_is_refused() -> None:
    class Drawing(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(F.dropout(images, 0.5))

    stacked = StackedNetworks([Drawing(nn.Flatten(), nn.Linear(12, 5)) for _ in range(2)])
    with pytest.raises(RuntimeError, match="random"):
        stacked(torch.randn(6, 3, 2, 2))
