"""Networks of timm by their names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stored_networks import same_weights

from rlkd_env.errors import UsageError
from rlkd_env.models import check_model, create_model, load_network, save_network
from rlkd_env.models.classifiers import timm_networks
from rlkd_env.models.taps.features import taps_of
from rlkd_env.utils.randomness import is_stochastic

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")


def test_without_timm_a_line_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_networks, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs timm: pip install timm"):
        check_model("timm/resnet18")


@needs_timm
@pytest.mark.parametrize("name", ["timm/resnet18", "timm/mobilenetv3_small_050"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_by_its_name_fits_the_images_and_has_taps(name: str, channels: int, tmp_path: Path) -> None:
    network = create_model(name, 7, (channels, 32, 32))
    assert network(torch.rand(2, channels, 32, 32)).shape == (2, 7)
    assert len(taps_of(network).stages) >= 2
    path = tmp_path / "network.safetensors"
    save_network(path, network.state_dict(), name, 7, (channels, 32, 32))
    assert same_weights(network, load_network(path, 7, (channels, 32, 32)))


@needs_timm
def test_safetensors_of_timm_itself_are_loaded(tmp_path: Path) -> None:
    network = create_model("timm/resnet10t", 7, (3, 32, 32))
    save_file(network.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_network(tmp_path / "model.safetensors", 7, (3, 32, 32), model="timm/resnet10t")
    assert same_weights(network, loaded)


@needs_timm
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "unknown timm network 'resnet81'. Did you mean 'resnet18'"),
        ("resnet18", {"depth": 3}, "timm's resnet18 cannot be made for images of shape .*depth"),
        ("vit_tiny_patch16_224", {"patch_size": 64}, "cannot be made|cannot take images"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_line(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        create_model(f"timm/{name}", 7, (3, 32, 32), **options)
    assert "\n" not in str(error.value)


@needs_timm
def test_pretrained_weights_that_cannot_be_had_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(name: str, **options: object) -> None:
        raise OSError("no route to the Hub\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UsageError, match="no route to the Hub; bring its weights as a file, or train it"):
        create_model("timm/resnet18", 7, (3, 32, 32), pretrained=True)


@needs_timm
def test_its_random_depth_and_dropout_are_seen() -> None:
    shape = (3, 32, 32)
    images = torch.rand(4, *shape)
    assert not is_stochastic(create_model("timm/resnet10t", 7, shape), images)
    assert is_stochastic(create_model("timm/resnet10t", 7, shape, drop_path_rate=0.1), images)
    assert is_stochastic(create_model("timm/resnet10t", 7, shape, drop_rate=0.1), images)
