"""How images are split into parts."""

from __future__ import annotations

import ast
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from image_files import arrays_source, pixels, write_npz

import rlkd_env
from rlkd_env.data import (
    DataConfig,
    ImageSet,
    create_source,
)
from rlkd_env.errors import UsageError


def rows(images: ImageSet) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in images.images)


def test_parts_are_disjoint_stratified_and_follow_the_seed(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=pixels(400), y_train=np.arange(400) % 4)
    options = {"train_images": 100, "teacher_images": 200, "validation_images": 60, "probe_size": 40}
    splits = arrays_source(path, **options).splits()
    sizes = [len(part) for part in (splits.train, splits.teacher_train, splits.validation, splits.probe)]
    assert sizes == [100, 200, 60, 40]
    together = rows(splits.teacher_train) + rows(splits.validation) + rows(splits.probe)
    assert max(together.values()) == 1
    assert not rows(splits.train) - rows(splits.teacher_train)
    for part in (splits.train, splits.teacher_train, splits.validation, splits.probe):
        assert part.labels.bincount().tolist() == [len(part) // 4] * 4
    again, other = arrays_source(path, **options).splits(), arrays_source(path, split_seed=1, **options).splits()
    assert again.train.fingerprint() == splits.train.fingerprint()
    assert other.train.fingerprint() != splits.train.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_images": 1000}, "validation part cannot have 1000 images: 90 are there"),
        ({"train_images": 81}, "training part cannot have 81 images: 80 are there"),
        ({"validation_images": 0}, "validation images must be at least 1 image, not 0"),
        ({"augmentation": "resized_crop"}, "needs image files"),
    ],
)
def test_impossible_parts_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        arrays_source(write_npz(tmp_path / "a.npz"), **options).splits()


@pytest.mark.real_data
@pytest.mark.skipif("RLKD_DATA" not in os.environ, reason="RLKD_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "classes", "shape", "sizes"),
    [
        ("cifar100", 100, (3, 32, 32), (46988, 512, 2500, 10000)),
        ("fashion_mnist", 10, (1, 28, 28), (56988, 512, 2500, 10000)),
    ],
)
def test_real_data_sets_are_split_as_documented(
    name: str, classes: int, shape: tuple[int, int, int], sizes: tuple[int, ...]
) -> None:
    source = create_source(DataConfig(dataset=name))
    splits, test = source.splits(), source.test_set()
    assert (splits.num_classes, splits.image_shape) == (classes, shape)
    assert tuple(len(part) for part in (splits.train, splits.probe, splits.validation, test)) == sizes
    shares = splits.validation.labels.bincount() / len(splits.validation)
    assert (shares - 1 / classes).abs().max() < 0.002


@pytest.mark.slow
def test_nothing_in_the_environment_reaches_the_test_set() -> None:
    package = Path(rlkd_env.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "data" or path.name == "frozen_features.py":  # a data source made of another one
            continue
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "test_set" not in names, path
