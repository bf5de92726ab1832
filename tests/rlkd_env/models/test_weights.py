"""The field's files of weights: how they are wrapped, told apart, and refused."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stored_networks import SHAPE, network, same_weights

from rlkd_env.data import DATASETS
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.models.weights import LoadReport, load_shared_weights, read_state_dict
from rlkd_env.training.teacher import TeacherRecipe, cached_teacher


def prefixed(weights: dict[str, Any], prefix: str = "module.") -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPINGS = {
    "bare": lambda weights: weights,
    "model": lambda weights: {"model": weights, "epoch": 240, "best_acc": torch.tensor(69.0)},
    "state_dict": lambda weights: {"state_dict": prefixed(weights), "optimizer": {"state": {}}},
    "net": lambda weights: {"net": weights, "acc": 93.1},
    "compiled": lambda weights: prefixed(weights, "_orig_mod."),
    "doubly wrapped": lambda weights: prefixed(weights, "_orig_mod.module."),
    "the other way round": lambda weights: {"model_state_dict": prefixed(weights, "module._orig_mod.")},
    "lightning": lambda weights: {"state_dict": prefixed(weights, "model."), "global_step": 3, "hyper_parameters": {}},
    "distilled": lambda weights: {"weights": prefixed(weights, "student.net.")},
    "backbone": lambda weights: prefixed(weights, "module.backbone."),
    "nested": lambda weights: {"network": {"module": prefixed(weights)}},
    "averaged": lambda weights: {"model_ema": {"n_averaged": torch.tensor(9), **prefixed(weights)}, "epoch": 3},
    "counted": lambda weights: {
        "total_ops": torch.zeros(1),
        "conv1.total_params": torch.zeros(1),
        "layer9.bn.num_batches_tracked": torch.tensor(3),
        **weights,
    },
    "another container": lambda weights: {"best_model": weights, "optimizer": {"state": {"exp_avg": torch.zeros(2)}}},
    "fastai": lambda weights: {"model": prefixed(weights, "0."), "opt": {"hypers": [{"lr": 1e-3}]}},
    "timm's options": lambda weights: {"state_dict": weights, "args": Namespace(lr=0.1, out=Path("a")), "arch": "x"},
    "numpy's scores": lambda weights: {"model": weights, "best": np.float64(0.5), "epoch": np.int64(3)},
    "numbers among them": lambda weights: {**weights, "epoch": 3},
    "a loss beside it": lambda weights: {"state_dict": {**prefixed(weights, "net."), "loss.weight": torch.ones(4)}},
    "backbone and head": lambda weights: {
        ("head." if name.startswith("fc") else "backbone.") + name: tensor for name, tensor in weights.items()
    },
    "before counters": lambda weights: {name: t for name, t in weights.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pth_files_of_all_wrappings_are_loaded(wrapping: str, tmp_path: Path) -> None:
    source = network()
    path = tmp_path / "resnet8_best.pth"
    torch.save(WRAPPINGS[wrapping](source.state_dict()), path)
    loaded = load_network(path, 10, SHAPE, model="resnet8")
    assert same_weights(source, loaded)
    assert not loaded.training
    assert load_shared_weights(network("resnet8"), read_state_dict(path), path) == LoadReport((), (), ())


def test_of_weights_and_their_average_the_average_is_taken_and_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, other = network(), create_model("resnet8", 10, SHAPE)
    torch.save({"state_dict": other.state_dict(), "state_dict_ema": source.state_dict()}, tmp_path / "a.pth.tar")
    assert same_weights(source, load_network(tmp_path / "a.pth.tar", 10, SHAPE, model="resnet8"))
    assert "holds weights (state_dict) and their average (state_dict_ema), which is taken\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda one, two: {"student": one, "teacher": two}, "several networks, under student, teacher"),
        (lambda one, two: {**prefixed(one, "student."), **prefixed(two, "ema.")}, r"under ema\., student\."),
    ],
)
def test_of_several_networks_in_a_file_none_is_chosen(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content(network().state_dict(), network().state_dict()), tmp_path / "a.pth")
    with pytest.raises(UsageError, match=message):
        load_network(tmp_path / "a.pth", 10, SHAPE, model="resnet8")


def test_what_lies_beside_a_network_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(WRAPPINGS["a loss beside it"](network().state_dict()), tmp_path / "a.ckpt")
    load_network(tmp_path / "a.ckpt", 10, SHAPE, model="resnet8")
    assert "the network under net. is taken; left out: loss.weight\n" in capsys.readouterr().err


def test_a_file_of_pytorch_may_be_called_safetensors(tmp_path: Path) -> None:
    source = network()
    torch.save(source.state_dict(), tmp_path / "a.safetensors")
    assert same_weights(source, load_network(tmp_path / "a.safetensors", 10, SHAPE, model="resnet8"))


def test_a_prefix_that_is_the_networks_own_stays() -> None:
    class Inside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Linear(2, 3)

    source, target = Inside(), Inside()
    for weights in (source.state_dict(), prefixed(source.state_dict(), "model.")):
        assert load_shared_weights(target, weights, "a file").complete
        assert torch.equal(target.model.weight, source.model.weight)


def test_the_kind_of_a_file_is_seen_from_its_content(tmp_path: Path) -> None:
    """mdistiller's files have no suffix."""
    source = network()
    torch.save({"model": source.state_dict()}, tmp_path / "student_best")
    save_file(source.state_dict(), tmp_path / "weights")
    for name in ("student_best", "weights"):
        assert same_weights(source, load_network(tmp_path / name, 10, SHAPE, model="resnet8"))


def test_the_fields_names_of_resnet18_are_translated(tmp_path: Path) -> None:
    source = network("resnet18_cifar")
    names = {
        name.replace(".downsample.", ".shortcut.").replace("fc.", "linear."): tensor
        for name, tensor in source.state_dict().items()
    }
    assert "layer2.0.shortcut.0.weight" in names
    assert "linear.bias" in names
    torch.save({"model": names}, tmp_path / "a.pth")
    assert same_weights(source, load_network(tmp_path / "a.pth", 10, SHAPE, model="resnet18_cifar"))


def test_other_architectures_are_refused_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "resnet14.pth"
    torch.save(network("resnet14").state_dict(), path)
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(
        UsageError, match=r"does not fit the network ResNet: it holds unknown layer1\.1\.conv1"
    ) as error:
        load_shared_weights(target, read_state_dict(path), path)
    assert "(30 names)" in str(error.value)
    assert "another architecture" in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    torch.save(network("resnet8").state_dict(), path)
    with pytest.raises(UsageError, match=r"it lacks layer1\.1\.conv1\.weight"):
        load_shared_weights(network("resnet14"), read_state_dict(path), path)


def test_other_classes_are_refused_by_their_shape_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    source = network(classes=100)
    torch.save(source.state_dict(), path)
    with pytest.raises(UsageError, match=r"wrong shape for fc\.weight \(100, 64\) instead of \(10, 64\)"):
        load_network(path, 10, SHAPE, model="resnet8")
    target = network()
    report = load_shared_weights(target, read_state_dict(path), path, strict=False)
    assert report == LoadReport((), (), ("fc.weight", "fc.bias"))
    assert not report.complete
    assert torch.equal(target.conv1.weight, source.conv1.weight)


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch {}".format(os.environ["RLKD_TEST_TRACE"]),)


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("RLKD_TEST_TRACE", str(trace))
    torch.save({"model": network().state_dict(), "extra": Malicious()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    torch.save(network(), tmp_path / "whole.pth")
    for name in ("zip", "plain", "whole"):
        with pytest.raises(UsageError, match=r"pickled Python objects \([\w.]+\), none of which was run") as error:
            load_network(tmp_path / f"{name}.pth", 10, SHAPE, model="resnet8")
        assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "model": {"a": 1}}, "holds no network's weights"),
        ([torch.zeros(2)], "holds no network's weights"),
        ({}, "holds no network's weights"),
        (b"", "damaged"),
        (b"PK\x03\x04 and nothing more", "damaged"),
        (b"\x80\x02garbage", "none of which was run"),
    ],
)
def test_files_without_weights_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message) as error:
        load_network(path, 10, SHAPE, model="resnet8")
    assert "\n" not in str(error.value)


def test_a_file_without_a_card_needs_the_networks_name(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"name it \(--teacher-model\)"):
        load_network(tmp_path / "a.pth", 10, SHAPE)
    with pytest.raises(UsageError, match=r"missing\.pth does not exist"):
        load_network(tmp_path / "missing.pth", 10, SHAPE, model="resnet8")
    save_file(network().state_dict(), tmp_path / "bare.safetensors")
    assert same_weights(network(), load_network(tmp_path / "bare.safetensors", 10, SHAPE, model="resnet8"))


def test_the_cache_of_teachers_takes_every_name(
    teacher_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cached_code.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trained: list[int] = []
    for _ in range(2):
        splits = DATASETS["digits"]().splits()
        cached_teacher(
            splits,
            TeacherRecipe(model="cached_code:make", epochs=1),
            lambda epoch, *_: trained.append(epoch),
        )
    assert trained == [1]
    assert list(teacher_cache.glob("teacher-cached_code-make-*.safetensors"))


@pytest.mark.real_data
def test_the_fields_resnet56_recognises_cifar100() -> None:
    """The first 2,000 test images of which RepDistiller's own code recognises as many with this file."""
    folder = Path(os.environ.get("RLKD_DATA", "."))
    name = "resnet56_cifar100.pth"
    path = next((place for place in (folder / name, folder / "weights" / name) if place.is_file()), None)
    if path is None or not (folder / "cifar100.npz").is_file():
        pytest.skip(f"needs cifar100.npz and {name} in the folder RLKD_DATA")
    with np.load(folder / "cifar100.npz") as data:
        pixels, labels = torch.from_numpy(data["x_test"][:2000]), torch.from_numpy(data["y_test"][:2000])
    mean, deviation = torch.tensor([[0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]])
    images = ((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2)
    teacher = load_network(path, 100, (3, 32, 32), model="resnet56")
    with torch.no_grad():
        predicted = torch.cat([teacher(chunk).argmax(1) for chunk in images.split(250)])
    assert int((predicted == labels).sum()) == 1383


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_network_for_colour_takes_grey_images_and_says_so(suffix: str, tmp_path: Path) -> None:
    network = create_model("resnet8", 10, (3, 16, 16)).eval()
    path = tmp_path / f"colour.{suffix}"
    if suffix == "pth":
        torch.save({"model": network.state_dict()}, path)
    else:
        save_network(path, network.state_dict(), "resnet8", 10, (3, 16, 16))
    with pytest.warns(UserWarning, match="gets the grey ones three times"):
        loaded = load_network(path, 10, (1, 16, 16), "resnet8")
    grey = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(loaded(grey), network(grey.expand(-1, 3, -1, -1)))
