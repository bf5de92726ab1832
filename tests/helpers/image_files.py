"""Small data sets of classified images on disk: arrays in an npz file, and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    DataSource,
    create_source,
)


def pixels(count: int, size: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def write_folder(root: Path, counts: dict[str, int], size: int = 20) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(pixels(1, size, seed=1000 * number + index)[0]).save(root / name / f"{index:02d}.png")
    return root


def folder_source(root: Path, **options: object) -> DataSource:
    settings = {"dataset": "image_folder", "data_path": str(root), "image_size": 16, "workers": 0, **options}
    return create_source(DataConfig(**settings))


def write_npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays = {
        "x_train": pixels(100),
        "y_train": np.arange(100) % 4,
        "x_test": pixels(20, seed=1),
        "y_test": np.arange(20) % 4,
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


def arrays_source(path: Path, **options: object) -> DataSource:
    return create_source(DataConfig(dataset="arrays", data_path=str(path), **options))
