"""Weights of torchvision's detectors, fetched and fitted to other classes and images."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from small_detectors import COLOUR, SMALL, detect, detector
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from rlkd_env.errors import UsageError
from rlkd_env.models.create import create_to_load
from rlkd_env.models.detectors import pretrained as pretrained_detectors
from rlkd_env.models.storage import load_network, save_network


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where PyTorch keeps what it has downloaded, and no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "kind"), [("resnet18", "backbone"), ("resnet50", "coco")])
def test_without_a_network_the_message_names_ways_without(downloads: Path, backbone: str, kind: str) -> None:
    with pytest.raises(
        UsageError, match=r"no network here.*pretrained=none.*checkpoints.*--teacher file\.pth"
    ) as error:
        detector(backbone, shape=COLOUR, pretrained=kind)
    assert "\n" not in str(error.value)


def test_a_damaged_download_is_told(downloads: Path) -> None:
    (downloads / "resnet18-f37072fd.pth").write_bytes(b"not weights")
    with pytest.raises(UsageError, match="torchvision's weights of resnet18 cannot be loaded here"):
        detector("resnet18", shape=COLOUR, pretrained="backbone")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_a_backbones_weights_are_loaded_and_frozen(downloads: Path, backbone: str, channels: int) -> None:
    weights = models.get_model_weights(backbone).IMAGENET1K_V1
    torch.manual_seed(1)
    published = models.get_model(backbone)
    torch.save(published.state_dict(), downloads / weights.url.rpartition("/")[2])
    network = detector(backbone, shape=(channels, 64, 64), pretrained="backbone")
    body = network.backbone.body
    source = published if backbone == "resnet18" else published.features
    expected = source.state_dict()
    stem = next(iter(expected))
    expected[stem] = expected[stem] if channels == 3 else expected[stem].sum(1, keepdim=True)
    for name, value in body.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())
    trained = {name.split(".")[0] for name, parameter in body.named_parameters() if parameter.requires_grad}
    last_three = {"layer2", "layer3", "layer4"} if backbone == "resnet18" else {str(block) for block in range(4, 13)}
    assert trained == last_three
    assert len(detect(network, torch.randn(1, channels, 64, 64))[0]) > 0


@pytest.mark.slow
def test_a_pretrained_detector_is_read_from_its_file_without_a_download(downloads: Path, tmp_path: Path) -> None:
    options = {**SMALL, "pretrained": "backbone"}
    network = create_to_load("fasterrcnn/resnet18", 3, COLOUR, **options)
    path = tmp_path / "student.safetensors"
    save_network(path, network.state_dict(), "fasterrcnn/resnet18", 3, COLOUR, options)
    images = torch.randn(1, *COLOUR)
    for value, same in zip(detect(network, images), detect(load_network(path, 3, COLOUR), images), strict=True):
        assert torch.equal(value, same)


def old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision's published file has them."""
    return {
        name.replace("conv.0.0.", "conv.").replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if name.startswith(("rpn.head.conv", "backbone.fpn"))
        else name: value
        for name, value in weights.items()
        if "num_batches" not in name
    }


@pytest.mark.slow
def test_weights_of_coco_fit_90_80_and_other_classes(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of torchvision's file lies one of a small detector."""
    monkeypatch.setattr(pretrained_detectors, "COCO_BACKBONE", "resnet18")
    published = create_to_load("fasterrcnn/resnet18", 90, COLOUR, **SMALL)
    path = downloads / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    weights = old_names(published.state_dict())
    assert "rpn.head.conv.weight" in weights
    assert "backbone.fpn.inner_blocks.0.weight" in weights
    torch.save(weights, path)
    every = detector("resnet18", 90, COLOUR, pretrained="coco")
    for name, value in every.state_dict().items():
        assert torch.equal(value, published.state_dict()[name]), name
    assert every.rpn.anchor_generator.sizes[0] == (32,)  # whatever the images' size
    assert {module.eps for module in every.modules() if isinstance(module, FrozenBatchNorm2d)} == {0.0}
    # COCO's class 13 is its 12th, as there is no 12.
    scores = published.roi_heads.box_predictor
    downloaded = detector("resnet18", 80, COLOUR, pretrained="coco")
    named = load_network(path, 80, COLOUR, model="fasterrcnn/resnet18", **SMALL)
    for eighty in (downloaded, named):
        predictor = eighty.roi_heads.box_predictor
        assert torch.equal(predictor.cls_score.weight[[0, 11, 12, 80]], scores.cls_score.weight[[0, 11, 13, 90]])
        assert torch.equal(predictor.bbox_pred.bias[48:52], scores.bbox_pred.bias[52:56])
    few = detector("resnet18", 3, COLOUR, pretrained="coco")
    assert few.roi_heads.box_predictor.cls_score.out_features == 4
    assert torch.equal(few.roi_heads.box_head.fc6.weight, published.roi_heads.box_head.fc6.weight)
    with pytest.raises(UsageError, match=r"cls_score\.weight \(91, 16\) instead of \(4, 16\)"):
        load_network(path, 3, COLOUR, model="fasterrcnn/resnet18", **SMALL)
    with pytest.raises(UsageError, match=r"COCO's weights do not fit a detector with these options: backbone\.fpn"):
        detector("resnet18", 3, COLOUR, pretrained="coco", fpn_channels=8)
