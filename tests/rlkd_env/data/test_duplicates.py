"""Images that are for training and for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    DataSource,
    count_duplicates,
    create_source,
)


def pixels(count: int, size: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


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


def test_duplicates_between_training_and_test_are_counted(tmp_path: Path) -> None:
    train = pixels(100)
    test = np.concatenate([train[:5], pixels(15, seed=1)])
    source = arrays_source(write_npz(tmp_path / "a.npz", x_train=train, x_test=test))
    images, _ = source.training_images()
    assert count_duplicates(images, source.test_set()) == 5
    assert count_duplicates(images, images.subset(torch.arange(7))) == 7
