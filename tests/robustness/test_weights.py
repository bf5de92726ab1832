"""Damaged weights are never used without a word: every flipped byte of a file is refused, or changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from experiments.cli import main
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.storage import load_network, load_student, save_network
from rlkd_env.models.weights import AVERAGES, CONTAINERS
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.files import read_tensors, write_tensors

SHAPE = (1, 8, 8)
QUICK = ["--epochs", "1", "--rule", "fixed", "--device", "cpu", "--no-progress", "--no-tensorboard"]


def ours(path: Path, network: nn.Module) -> None:
    save_network(path, network.state_dict(), "mlp6", 10, SHAPE)


def shared(path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), path)


@pytest.mark.parametrize(("write", "name"), [(ours, "a.safetensors"), (shared, "a.pth")])
def test_every_flipped_byte_is_noticed_or_changes_nothing(
    write: Callable[[Path, nn.Module], None], name: str, tmp_path: Path
) -> None:
    network, path = create_model("mlp6", 10, SHAPE), tmp_path / name
    write(path, network)
    content, refused = path.read_bytes(), 0
    generator = np.random.default_rng(0)
    for place in generator.choice(len(content), 150, replace=False).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(flipped))
        try:
            loaded = load_network(path, 10, SHAPE, "mlp6")
        except UsageError as error:
            refused += "\n" not in str(error)
            continue
        for parameter, own in zip(loaded.parameters(), network.parameters(), strict=True):
            assert torch.equal(parameter, own), place
    assert refused > 75


def test_files_of_before_are_loaded_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, path = create_model("mlp6", 10, SHAPE), tmp_path / "a.safetensors"
    card = {"model": "mlp6", "num_classes": 10, "image_shape": SHAPE}
    save_file(network.state_dict(), path, {"network": json.dumps(card)})
    loaded = load_network(path, 10, SHAPE)
    assert "of an earlier version and has no checksum" in capsys.readouterr().err
    assert torch.equal(next(loaded.parameters()), next(network.parameters()))
    ours(path, network)
    load_network(path, 10, SHAPE)
    assert not capsys.readouterr().err


def test_a_damaged_cached_teacher_is_trained_anew_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLKD_CACHE", str(tmp_path))
    config = RunConfig.from_keywords(device="cpu", teacher_model="mlp6")
    first = build_run(config).teacher.state_dict()
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-40] ^= 0x40  # a weight
    file.write_bytes(bytes(content))
    capsys.readouterr()
    again = build_run(config).teacher.state_dict()
    assert re.search(r"the cached teacher is made anew: .* is damaged: its checksum", capsys.readouterr().err)
    assert all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.fill_(float("nan")), "logits that are not finite"),
        (lambda tensor: tensor.fill_(float("inf")), "logits that are not finite"),
        (lambda tensor: tensor.zero_(), "the same logits for all images or classes"),
    ],
)
def test_a_teacher_that_tells_nothing_is_refused_by_its_name(
    change: Callable[[torch.Tensor], object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, path = create_model("mlp6", 10, SHAPE), tmp_path / "mine.safetensors"
    with torch.no_grad():
        change(list(network.parameters())[-2])  # the last layer's weights
    ours(path, network)
    assert main(["distill", *QUICK, "--teacher", str(path), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert f"the teacher {path} gives {message}" in told
    assert not (tmp_path / "run").exists()


def test_so_is_one_of_several_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, empty = create_model("mlp6", 10, SHAPE), create_model("mlp6", 10, SHAPE)
    with torch.no_grad():
        list(empty.parameters())[-2].zero_()  # of which the mean of both shows nothing
    ours(tmp_path / "sound.safetensors", sound)
    ours(tmp_path / "empty.safetensors", empty)
    names = [str(tmp_path / f"{name}.safetensors") for name in ("sound", "empty")]
    assert main(["distill", *QUICK, "--teacher", *names, "--out", str(tmp_path / "run")]) == 2
    assert f"the teacher {names[1]} gives the same logits for all" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "options"), [("regnet_y_128gf", {}), ("resnet50", {"width_per_group": 2**20})])
def test_a_network_that_is_far_larger_than_its_file_is_not_built(
    name: str, options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    card = {"model": f"torchvision/{name}", "num_classes": 10, "image_shape": SHAPE, "options": options}
    write_tensors(path, {"weight": torch.ones(1)}, {"network": json.dumps(card)})
    monkeypatch.setattr("rlkd_env.models.storage.create_to_load", lambda *_, **__: pytest.fail("it is built"))
    with pytest.raises(UsageError, match="it holds another network"):
        load_network(path, 10, SHAPE)


def test_metadata_are_covered_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.ones(3)}, {"of": "tests"})
    path.write_bytes(path.read_bytes().replace(b"tests", b"texts"))
    with pytest.raises(UsageError, match="its checksum is not that"):
        read_tensors(path)


def holding_itself() -> dict[str, object]:
    content: dict[str, object] = {}
    content["model"] = content
    return content


def holding_all_containers(levels: int) -> dict[str, object]:
    return {} if not levels else dict.fromkeys((*AVERAGES, *CONTAINERS), holding_all_containers(levels - 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (holding_itself(), "holds no network's weights"),
        (holding_all_containers(30), "holds no network's weights"),
        (lambda tensor: tensor.to_sparse(), "not the plain numbers"),
        (lambda tensor: tensor.to("meta"), "not the plain numbers"),
        (lambda tensor: tensor.to(torch.complex64), "not the plain numbers"),
        (lambda tensor: tensor.long(), "not the plain numbers"),
        (lambda tensor: tensor[:1].expand(10**6, *tensor.shape[1:]), "has the wrong shape"),
    ],
)
def test_pth_files_of_other_things_than_plain_numbers(content: object, message: str, tmp_path: Path) -> None:
    network, path = create_model("mlp6", 10, SHAPE), tmp_path / "a.pth"
    if callable(content):
        content = {name: content(tensor.detach()) for name, tensor in network.state_dict().items()}
    torch.save(content, path)
    with pytest.raises(UsageError, match=message):
        load_network(path, 10, SHAPE, "mlp6")


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": "10"},
        {"num_classes": True},
        {"num_classes": 10**12},
        {"image_shape": [1, 8]},
        {"image_shape": ["1", 8, 8]},
        {"image_shape": [1, 10**6, 10**6]},
        {"options": 5},
        {"model": None},
    ],
)
def test_a_card_of_wrong_types_or_sizes_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    network, path = create_model("mlp6", 10, SHAPE), tmp_path / "a.safetensors"
    card = {"model": "mlp6", "num_classes": 10, "image_shape": SHAPE, **change}
    write_tensors(path, network.state_dict(), {"network": json.dumps(card)})
    with pytest.raises(UsageError, match="is damaged"):
        load_student(path)


def test_timm_reads_no_file_that_options_name() -> None:
    for option in ("checkpoint_path", "pretrained_cfg_overlay"):
        with pytest.raises(UsageError, match=f"cannot have the option {option}"):
            create_model("timm/resnet18", 10, SHAPE, **{option: "evil.pth"})
