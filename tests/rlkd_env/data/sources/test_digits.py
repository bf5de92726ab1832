"""The split of Digits."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from rlkd_env.data import DATASETS, DataConfig, ImageSet, create_source
from rlkd_env.errors import UsageError


def fingerprints(images: ImageSet) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in images.images)


def test_digits_are_split_as_documented() -> None:
    source = DATASETS["digits"]()
    splits, test = source.splits(), source.test_set()
    sizes = [len(part) for part in (splits.teacher_train, splits.train, splits.probe, splits.validation, test)]
    assert sizes == [800, 300, 150, 150, 697]
    assert splits.image_shape == (1, 8, 8)
    assert splits.train.images.min() >= 0.0
    assert splits.train.images.max() <= 1.0


def test_other_splits_of_digits_have_the_same_test_set_and_disjoint_parts() -> None:
    sizes = {"teacher_images": 1000, "train_images": 200, "validation_images": 100}
    first, second = (create_source(DataConfig(split_seed=seed, **sizes)) for seed in (0, 3))
    assert fingerprints(first.test_set()) == fingerprints(second.test_set())
    assert len(second.test_set()) == 1797 - 1000 - 150 - 100
    for source in (first, second):
        splits = source.splits()
        parts = [splits.teacher_train, splits.probe, splits.validation, source.test_set()]
        assert max(sum((fingerprints(part) for part in parts), Counter()).values()) == 1
        assert fingerprints(splits.train) + fingerprints(splits.reserve) == fingerprints(splits.teacher_train)
    assert fingerprints(first.splits().train) != fingerprints(second.splits().train)


def test_digits_cannot_be_split_into_more_images_than_there_are() -> None:
    with pytest.raises(UsageError, match="validation part cannot have 900 images"):
        create_source(DataConfig(validation_images=900)).splits()
    with pytest.raises(UsageError, match="leave out image_size"):
        create_source(DataConfig(image_size=16))


def test_the_parts_of_digits_are_disjoint_and_stratified() -> None:
    source = DATASETS["digits"]()
    splits = source.splits()
    parts = [splits.teacher_train, splits.probe, splits.validation, source.test_set()]
    together = sum((fingerprints(part) for part in parts), Counter())
    assert sum(together.values()) == 1797
    assert max(together.values()) == 1  # no image stands twice, so none is in two parts
    assert not fingerprints(splits.train) - fingerprints(splits.teacher_train)
    for part in [*parts, splits.train]:
        shares = part.labels.bincount(minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 0.02


def test_the_split_is_the_same_every_time() -> None:
    first, second = DATASETS["digits"]().splits(), DATASETS["digits"]().splits()
    assert torch.equal(first.train.images, second.train.images)
