"""Files that are whole or not there, and what is refused when they are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import (
    load_weights,
    read_json,
    read_tensors,
    tensors_hash,
    write_atomically,
    write_json,
    write_tensors,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deeper" / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_files_are_as_readable_as_others_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    write_atomically(tmp_path / "file", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "other")]
    assert modes[0] == modes[1]


def test_json_and_tensors_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}
    tensors = {"a": torch.arange(6).view(2, 3).T, "b": torch.zeros((), dtype=torch.bfloat16)}
    write_tensors(tmp_path / "a.safetensors", tensors, {"of": "tests"})
    found, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"of": "tests", "sha256": metadata["sha256"]}
    assert found["a"].tolist() == tensors["a"].tolist()
    assert found["b"].dtype == torch.bfloat16
    assert tensors_hash(found) == tensors_hash(tensors)


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, 1)},
        {"a": torch.zeros(2, dtype=torch.float64)},
        {"a": torch.tensor([0.0, 1e-30])},
        {"a": torch.tensor([0.0, -0.0])},
    ],
    ids=["name", "shape", "type", "value", "sign"],
)
def test_the_hash_tells_tensors_apart(other: dict[str, torch.Tensor]) -> None:
    assert tensors_hash(other) != tensors_hash({"a": torch.zeros(2)})


def test_what_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    for read, name, message in (
        (read_json, "missing", "does not exist"),
        (read_json, "file", "cannot be read as JSON"),
        (read_tensors, "missing", "does not exist"),
        (read_tensors, "file", "is damaged or no safetensors file"),
    ):
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name)


def test_weights_of_another_network_are_refused_by_the_first_name_that_differs() -> None:
    layer = torch.nn.Linear(2, 3)
    weights = layer.state_dict()
    for tensors, message in (
        ({"weight": weights["weight"]}, "lacks 'bias'"),
        ({**weights, "extra": torch.zeros(1)}, "holds 'extra', which the network lacks"),
        ({**weights, "bias": torch.zeros(4)}, r"'bias' has shape \(4,\), expected \(3,\)"),
    ):
        with pytest.raises(UsageError, match=message):
            load_weights(layer, tensors, Path("student"))
    load_weights(layer, {name: torch.ones_like(value) for name, value in weights.items()}, Path("student"))
    assert float(layer.weight.sum() + layer.bias.sum()) == 9.0
