"""Damaged and hostile files: a command that meets one does its work or refuses in a line, and never hangs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from damage import damaged

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
def test_damaged_files_of_runs(reader: str, is_full: bool, told: Told, copy: Copy) -> None:
    folder, name, command = READERS[reader]
    wrong = {}
    for number in range(SIZES["full" if is_full else "small"]):
        place = copy(folder)
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
def test_damaged_data(dataset: str, file: str, is_full: bool, copy: Copy) -> None:
    folder = copy("data")
    content = (folder / file).read_bytes()
    path = folder / ("images" if dataset == "image_folder" else file)
    refused = 0
    for number in range(40 if is_full else 8):
        (folder / file).write_bytes(damaged(content, number))
        with suppress(UsageError):
            load(dataset, path, image_size=8)
            refused -= 1
        refused += 1
    assert refused
