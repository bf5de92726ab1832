"""Gradients that are wrong in bfloat16 are seen, and those that are only rounded are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlkd_env.models import create_model
from rlkd_env.models.engine import choose_engine, has_fast_bfloat16
from rlkd_env.models.engine.precision import has_same_gradients

CPU = torch.device("cpu")


class WrongInReduced(nn.Module):
    """A network whose gradients are garbage under autocast, as a faulty kernel's are."""

    def __init__(self, garbage: float) -> None:
        super().__init__()
        self.layer, self.garbage = nn.Conv2d(1, 4, 3), garbage
        self.layer.weight.register_hook(self._spoilt)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.is_reduced = torch.is_autocast_enabled("cpu")
        return self.layer(images).mean(dim=(2, 3))

    def _spoilt(self, gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, self.garbage) if self.is_reduced else gradient


class OnTinyMaps(nn.Sequential):
    """A network whose strided convolution has maps of one pixel."""

    def __init__(self) -> None:
        layers = [nn.Conv2d(1, 16, 8), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(16, 10))


@pytest.mark.parametrize("name", ["digits_cnn", "cnn8", "resnet20", "mobilenet_v2_half"])
def test_rounding_is_no_error(name: str) -> None:
    shape = (1, 8, 8) if name == "digits_cnn" else (1, 32, 32)
    network = create_model(name, 10, shape)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    assert has_same_gradients(network, images)
    assert has_same_gradients(network, images, channels_last=True)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e18])
def test_garbage_is_seen(garbage: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    network, images = WrongInReduced(garbage), torch.rand(4, 1, 8, 8)
    hooked = lambda part: part  # noqa: E731 (a hook of a copy would be that of the original)
    monkeypatch.setattr("rlkd_env.models.engine.precision.copy.deepcopy", hooked)
    assert not has_same_gradients(network, images)
    monkeypatch.setattr("rlkd_env.models.engine.engine.has_fast_bfloat16", lambda _: True)
    assert choose_engine(CPU, network, images=images).precision == "float32"
    assert "gradients are wrong in bfloat16 on this CPU" in capsys.readouterr().err
    assert choose_engine(CPU, network, "bfloat16", images=images).precision == "bfloat16"  # who asks for it, gets it
    assert choose_engine(CPU, create_model("cnn8", 10, (1, 8, 8)), images=images).precision == "bfloat16"


@pytest.mark.skipif(not has_fast_bfloat16(CPU), reason="the CPU does not multiply bfloat16")
def test_weights_of_strided_convolutions_on_tiny_maps_stay_sound() -> None:
    """PyTorch returns unwritten memory as their gradients on such CPUs, or does not; ``auto`` is right either way."""
    torch.manual_seed(0)
    images, engines = torch.rand(4, 1, 8, 8), set()
    for _ in range(20):
        network = OnTinyMaps()
        engine = choose_engine(CPU, network, images=images)
        engines.add(engine.precision)
        engine.forward(network, images).square().mean().backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in gradients) < 1e3
    assert len(engines) == 1  # not now this, now that
