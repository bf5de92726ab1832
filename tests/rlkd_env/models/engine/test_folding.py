"""Frozen networks with fewer operations compute what they did before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from frozen_networks import SHAPE, with_statistics
from torch import Tensor, nn

from rlkd_env.models.engine import Engine
from rlkd_env.models.engine.folding import ActivatedConvolution, example_images, fold_batch_norms, fuse_activations


@pytest.mark.parametrize(
    "name", ["resnet8", "wrn_16_1", "vgg8", "mobilenet_v2_half", "shufflenet_v2", "resnet18_cifar"]
)
def test_a_folded_teacher_gives_the_same_logits_without_batch_norms(name: str) -> None:
    network = with_statistics(name)
    folded = fold_batch_norms(network, SHAPE)
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) for net in (network, folded)]
    assert norms[1] < norms[0]
    images = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-3)


class Unfoldable(nn.Module):
    """torch.fx cannot follow a branch on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.conv(images))
        return maps.mean((2, 3)) if maps.mean() > -100 else maps.amax((2, 3))


@pytest.mark.parametrize("network", [Unfoldable(), nn.Sequential(nn.Flatten(), nn.Linear(768, 3))])
def test_networks_that_cannot_be_folded_stay_as_they_are(network: nn.Module) -> None:
    assert fold_batch_norms(network.eval(), SHAPE) is network


@pytest.fixture
def cudnn_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cuDNN's kernels be what their documentation says of them."""

    def convolution_relu(maps: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        return F.conv2d(maps, weight, bias, *how).relu()

    def convolution_add_relu(
        maps: Tensor, weight: Tensor, added: Tensor, alpha: float, bias: Tensor | None, *how: Any
    ) -> Tensor:
        found = F.conv2d(maps, weight, bias, *how)
        if added.shape != found.shape:
            raise RuntimeError("the shapes differ")
        return (found + alpha * added).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", convolution_relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", convolution_add_relu)


def fused_convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, ActivatedConvolution) for module in network.modules())


@pytest.mark.usefixtures("cudnn_on_a_cpu")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet8", 7), ("wrn_16_1", 6), ("vgg8", 5), ("shufflenet_v2", 24), ("resnet18_cifar", 17), ("cnn8", 3)],
)
def test_activations_are_computed_along_with_convolutions(name: str, expected: int) -> None:
    folded = fold_batch_norms(with_statistics(name), SHAPE)
    before = len(folded.graph.nodes)
    fused = fuse_activations(folded, example_images(folded, SHAPE))
    assert fused_convolutions(fused) == expected
    assert fused_convolutions(folded) == 0
    assert len(folded.graph.nodes) == before > len(fused.graph.nodes)
    images = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), folded(images), rtol=1e-5, atol=1e-5)


class Broadcast(nn.Module):
    """What is added to the convolution is of another shape, which cuDNN does not add."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)) + images.mean((1, 2, 3), keepdim=True)).mean((2, 3))


class Shared(nn.Module):
    """A convolution that is called twice, and one whose maps are used before and after the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norm(self.first(images))
        return (F.relu(self.twice(F.relu(self.twice(F.relu(maps))))) + maps).mean((2, 3))


@pytest.mark.usefixtures("cudnn_on_a_cpu")
@pytest.mark.parametrize("network", [Broadcast(), Shared()])
def test_what_is_no_such_activation_stays_as_it_is(network: nn.Module) -> None:
    folded = fold_batch_norms(network.eval(), SHAPE)
    assert folded is not network
    fused = fuse_activations(folded, example_images(folded, SHAPE))
    assert fused_convolutions(fused) == 0
    images = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), folded(images))


@pytest.mark.usefixtures("cudnn_on_a_cpu")
def test_a_kernel_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = fold_batch_norms(with_statistics("cnn8"), SHAPE)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", lambda *given: F.conv2d(*given))
    assert fuse_activations(folded, example_images(folded, SHAPE)) is folded


@pytest.mark.usefixtures("cudnn_on_a_cpu")
def test_an_activated_convolution_computes_in_the_engines_precision() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    activated, images = ActivatedConvolution(layer), torch.randn(2, *SHAPE)
    with torch.no_grad(), Engine(torch.device("cpu"), "bfloat16").autocast():
        for added in ((), (torch.randn(2, 4, 16, 16),)):
            found = activated(images, *added)
            assert found.dtype == torch.bfloat16
            expected = F.relu(layer(images) + sum(added))
            torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "resnet18_cifar"])
def test_a_gpu_computes_the_same_with_fewer_kernels(name: str, precision: str) -> None:
    engine = Engine(torch.device("cuda"), precision, channels_last=True)
    network = with_statistics(name).cuda()
    frozen = engine.freeze(network, SHAPE)
    assert fused_convolutions(frozen) > 0
    images = engine.images(torch.randn(64, *SHAPE, device="cuda"))
    with torch.no_grad():
        found, expected = engine.forward(frozen, images), network(images)
    tolerance = 0.01 if precision == "float32" else 0.1  # a GPU computes convolutions in tf32
    assert (found - expected).norm() <= tolerance * expected.norm()
