"""Files that are whole or not there, and what is refused when they are read."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path
from typing import TypedDict

import pytest
import torch

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import (
    check_memory,
    load_weights,
    read_bytes,
    read_json,
    read_tensors,
    reading,
    remove_leftovers,
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


class Named(TypedDict):
    """A mapping with a key that must be there."""

    name: str


class Told(Named, total=False):
    """A mapping with further keys that may be there."""

    figure: float | None
    rows: list[dict[str, int]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"\[\] is not names and values"),
        ('{"figure": 1}', "it lacks name"),
        ('{"name": 1}', "name is damaged: 1 is not text"),
        ('{"name": "a", "figure": "x"}', "figure is damaged: 'x' is not a number"),
        ('{"name": "a", "figure": true}', "figure is damaged: True is not a number"),
        ('{"name": "a", "figure": 1e999}', "figure is damaged: inf is not a number"),
        ('{"name": "a", "rows": [{"b": 1}, {"c": 1.5}]}', r"rows\[1\]: c is damaged: 1.5 is not a whole number"),
        ('{"name": "a", "rows": {}}', r"rows is damaged: \{\} is not a list"),
    ],
)
def test_values_of_another_type_are_told_with_their_place(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_json(tmp_path / "a.json", Told)


def test_values_of_the_right_types_are_returned(tmp_path: Path) -> None:
    content = {"name": "a", "figure": None, "rows": [{"b": 1}], "more": [1, "x"]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", Told) == content
    write_json(tmp_path / "a.json", {"name": "a", "figure": float("nan")})  # stands for what is not known
    assert math.isnan(read_json(tmp_path / "a.json", Told)["figure"])


def test_files_are_regular_and_not_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('"four"')
    assert read_json(path, str, limit=6) == "four"
    with pytest.raises(UsageError, match="too large to be such a file: 6 bytes, at most 5 are expected"):
        read_json(path, str, limit=5)
    with pytest.raises(UsageError, match="is a folder"):
        read_bytes(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no regular file"):
        read_tensors(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"takes 1048576\.0 GiB, more than this machine's memory"):
        check_memory(2**50, "this")


def test_whatever_the_content_of_a_file_raises_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a is damaged: ZeroDivisionError first$"), reading(Path("a")):
        raise ZeroDivisionError("first\nsecond")
    with pytest.raises(UsageError, match=r"^mine$"), reading(Path("a")):
        raise UsageError("mine")
    with pytest.raises(KeyboardInterrupt), reading(Path("a")):
        raise KeyboardInterrupt


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    left = [".history.json.abc_1234", ".student.safetensors.abcdefgh", "checkpoint/.checkpoint.pt.12345678"]
    kept = [".settings.abcdefgh", ".history.json", "history.json.abcdefgh", ".a.json.abcdefghi"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []


def test_a_write_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.json cannot be written, and is as it was: No space left") as raised:
        write_json(tmp_path / "a.json", {})
    assert raised.value.errno == errno.ENOSPC
