"""Images that are for training and for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from image_files import arrays_source, pixels, write_npz

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    count_duplicates,
)


def test_duplicates_between_training_and_test_are_counted(tmp_path: Path) -> None:
    train = pixels(100)
    test = np.concatenate([train[:5], pixels(15, seed=1)])
    source = arrays_source(write_npz(tmp_path / "a.npz", x_train=train, x_test=test))
    images, _ = source.training_images()
    assert count_duplicates(images, source.test_set()) == 5
    assert count_duplicates(images, images.subset(torch.arange(7))) == 7
