"""Our own files, which name their network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from stored_networks import SHAPE, network, same_weights
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.utils.files import read_tensors, write_tensors


@pytest.mark.slow
def test_our_files_keep_name_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    options = {"dropout": 0.3, "stages": ("features.0", "features.3")}
    source = create_model("torchvision/mobilenet_v3_small", 10, SHAPE, **options)
    save_network(path, source.state_dict(), "torchvision/mobilenet_v3_small", 10, SHAPE, options)
    loaded = load_network(path, 10, SHAPE)
    assert same_weights(source, loaded)
    assert loaded.taps == source.taps
    assert loaded.classifier[2].p == 0.3
    assert same_weights(source, load_network(path, 10, SHAPE, model="mobilenet_v3_small"))
    with pytest.raises(UsageError, match="holds a network 'torchvision/mobilenet_v3_small', not 'resnet8'"):
        load_network(path, 10, SHAPE, model="resnet8")


def test_cards_without_options_are_as_before(tmp_path: Path) -> None:
    save_network(tmp_path / "a.safetensors", network().state_dict(), "resnet8", 10, SHAPE)
    card = json.loads(read_tensors(tmp_path / "a.safetensors")[1]["network"])
    assert card == {"model": "resnet8", "num_classes": 10, "image_shape": [3, 16, 16]}


@pytest.mark.parametrize("options", [{"weights": "DEFAULT"}, {"name": "mlp12"}, 7, {"nonsense": 1}])
def test_cards_with_bad_options_are_refused(options: object, tmp_path: Path) -> None:
    card = {"model": "torchvision/squeezenet1_1", "num_classes": 10, "image_shape": SHAPE, "options": options}
    write_tensors(tmp_path / "a.safetensors", {}, {"network": json.dumps(card)})
    with pytest.raises(UsageError):
        load_network(tmp_path / "a.safetensors", 10, SHAPE)


def test_a_card_alone_never_imports_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_code.py").write_text(
        "from torch import nn\ndef make(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes))"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    path = tmp_path / "a.safetensors"
    save_network(path, source.state_dict(), "somebodys_code:make", 10, SHAPE)
    with pytest.raises(UsageError, match=r"which a file alone never runs.*--teacher-model somebodys_code:make"):
        load_network(path, 10, SHAPE)
    with pytest.raises(UsageError, match="holds a network 'somebodys_code:make', not 'somebodys_code:other'"):
        load_network(path, 10, SHAPE, model="somebodys_code:other")
    assert "somebodys_code" not in sys.modules
    assert same_weights(source, load_network(path, 10, SHAPE, model="somebodys_code:make"))
    monkeypatch.delitem(sys.modules, "somebodys_code")
