"""Damaged and hostile files: a command that meets one does its work or refuses in a line, and never hangs."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from damage import damaged
from PIL import Image

from rlkd_env.data import create_source
from rlkd_env.data.config import DataConfig
from rlkd_env.errors import UsageError

Told = Callable[[list[str]], str | None]
Copy = Callable[[str], Path]
NEXT = ["--epochs", "1", "--rule", "fixed", "--student", "mlp8", "--device", "cpu", "--no-progress", "--no-tensorboard"]
RUN_FILES = ["config.json", "summary.json", "history.json", "trace.safetensors", "credit.json"]
READERS: dict[str, tuple[str, str, Callable[[Path], list[str]]]] = {
    **{f"report {name}": ("run", name, lambda run: ["report", str(run)]) for name in RUN_FILES},
    "validate summary.json": ("run", "summary.json", lambda run: ["validate", str(run), "--no-progress"]),
    "resume a finished run": ("run", "summary.json", lambda run: ["distill", "--resume", "--out", str(run)]),
    **{
        f"resume with {name}": (
            "stopped",
            name,
            lambda run: ["distill", "--resume", "--no-progress", "--out", str(run)],
        )
        for name in ("config.json", "checkpoint/checkpoint.pt")
    },
    "export summary.json": ("run", "summary.json", lambda run: ["export", str(run), "--format", "state-dict"]),
    "export student.safetensors": (
        "run",
        "student.safetensors",
        lambda run: ["export", str(run), "--format", "state-dict"],
    ),
    **{
        f"report a population's {name}": ("members", name, lambda run: ["report", str(run)])
        for name in ("summary.json", "history.json")
    },
    "resume a population": ("population", "population.json", lambda run: ["distill", "--resume", "--out", str(run)]),
    **{
        f"policy's {name}": (
            "run",
            name,
            lambda run: ["distill", "--policy", str(run), *NEXT[:2], *NEXT[4:], "--out", f"{run}-next"],
        )
        for name in ("policy.json", "policy.safetensors")
    },
    "teacher": (
        "teacher",
        "teacher.safetensors",
        lambda folder: ["distill", "--teacher", str(folder), *NEXT, "--out", f"{folder}-next"],
    ),
    "comparison": ("comparison", "comparison.json", lambda folder: ["report", str(folder)]),
    "a comparison's run": (
        "comparison",
        "runs/digits/lskd/seed0/history.json",
        lambda folder: ["report", str(folder)],
    ),
}
"""Whose file is damaged, and the command that reads it then."""
SIZES = {"small": 4, "full": 32}


@pytest.mark.attack
@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_of_runs(reader: str, is_full: bool, told: Told, copy: Copy, tally: Counter[str]) -> None:
    folder, name, command = READERS[reader]
    wrong = {}
    for number in range(SIZES["full" if is_full else "small"]):
        place = copy(folder)
        tally["damaged files"] += 1
        file = place / name
        file.write_bytes(damaged(file.read_bytes(), number))
        if (reason := told(command(place))) is not None:
            wrong[number] = reason
    assert wrong == {}


def load(dataset: str, path: Path, **options: object) -> None:
    """Load all parts of data."""
    source = create_source(DataConfig.from_keywords(dataset=dataset, data_path=str(path), **options))
    source.splits()
    source.test_set()


@pytest.mark.attack
@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("arrays", "arrays.npz"),
        ("arrays", "compressed.npz"),
        ("image_folder", "images/train/cat/0.jpg"),
        ("image_folder", "images/train/cat/1.png"),
    ],
)
def test_damaged_data(dataset: str, file: str, is_full: bool, copy: Copy, tally: Counter[str]) -> None:
    folder = copy("data")
    content = (folder / file).read_bytes()
    path = folder / ("images" if dataset == "image_folder" else file)
    refused = 0
    for number in range(40 if is_full else 8):
        (folder / file).write_bytes(damaged(content, number))
        tally["damaged files"] += 1
        with suppress(UsageError):
            load(dataset, path, image_size=8)
            refused -= 1
        refused += 1
    assert refused


def deep(brackets: int) -> str:
    return "[" * brackets + "]" * brackets


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_TEXTS = {
    "deep JSON": f'{{"a": {deep(100_000)}}}',
    "a number of many digits": '{"epochs": ' + "9" * 100_000 + "}",
    "references to references": LAUGHS,
    "a list that holds itself": "epochs: &a [*a]",
    "a date that there is not": "epochs: 2020-99-99",
    "no UTF-8": "\udcff",
    "a tag of Python": "epochs: !!python/object/apply:os.system [echo]",
    "a key that is a list": "? [a, b]\n: 1",
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_hostile_configs(name: str, told: Told, tmp_path: Path) -> None:
    file, folder = tmp_path / "file.yaml", tmp_path / "run"
    file.write_bytes(HOSTILE_TEXTS[name].encode(errors="surrogateescape"))
    folder.mkdir()
    (folder / "config.json").write_bytes(file.read_bytes())
    for command in (
        ["distill", "--config", str(file)],
        ["compare", "--config", str(file)],
        ["train-agent", "--instances", str(file)],
        ["distill", "--resume", "--out", str(folder)],
        ["report", str(folder)],
    ):
        assert told(command) is None


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a folder", "a large file"])
def test_what_is_no_such_file_is_refused_at_once(kind: str, told: Told, tmp_path: Path) -> None:
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)  # sparse
    run, out = str(path.parent), ["--out", str(tmp_path / "out")]
    for command in (
        ["distill", "--config", str(path), *out],
        ["distill", "--resume", "--out", run],
        ["distill", "--teacher", str(path), "--device", "cpu", *out],
        ["distill", "--policy", str(path), *NEXT[:2], "--device", "cpu", *out],
        ["distill", "--dataset", "arrays", "--data-path", str(path), *out],
        ["train-agent", "--instances", f"{path}", *out],
        ["validate", str(path)],
        ["report", run],
        ["report", run, "--credit", str(path)],
    ):
        assert told(command) is None
    assert not (tmp_path / "out").exists()


def bomb(path: Path, side: int) -> None:
    """Write a small PNG file that says that its image is large."""
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"IHDR")
    content[place + 4 : place + 12] = struct.pack(">II", side, side)
    content[place + 17 : place + 21] = struct.pack(">I", zlib.crc32(content[place : place + 17]))
    path.write_bytes(bytes(content))


def test_images_of_absurd_sizes_and_pipes_are_refused(copy: Copy) -> None:
    folder = copy("data") / "images"
    image = folder / "train" / "cat" / "1.png"
    for side in (15_000, 30_000, 2**31 - 1):
        bomb(image, side)
        with pytest.raises(UsageError, match=r"1\.png cannot be read"):
            load("image_folder", folder, image_size=8)
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(UsageError, match=r"1\.png is no regular file"):
        load("image_folder", folder, image_size=8)


def test_arrays_that_say_that_they_are_large_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    def header(shape: tuple[int, ...]) -> bytes:
        content = io.BytesIO()
        np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return content.getvalue()

    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", header((10**9, 1000, 1000)) + b"\0" * 100)
        archive.writestr("y_train.npy", header((10**9,)) + b"\0" * 100)
    with pytest.raises(UsageError, match="has 228 of its 1000000000000000 bytes"):
        load("arrays", path)
