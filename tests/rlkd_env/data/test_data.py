"""Digits and their parts, and the stream of batches."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
import torch

import rlkd_env
from rlkd_env.data import DATASETS, BatchStream, DataConfig, ImageSet, MemoryImages, create_source
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


def small_set(size: int) -> ImageSet:
    return MemoryImages(torch.arange(size, dtype=torch.float32).view(size, 1, 1, 1), torch.arange(size))


def test_an_epoch_shows_every_image_at_most_once_in_full_batches() -> None:
    stream = BatchStream(small_set(10), 3, seed=0)
    assert stream.batches_per_epoch == 3
    for epoch in range(4):
        batches = [stream.batch(3 * epoch + position) for position in range(3)]
        seen = torch.cat([batch.indices for batch in batches])
        assert len(seen.unique()) == 9
        for batch in batches:
            assert torch.equal(batch.images.flatten().long(), batch.labels)
            assert torch.equal(batch.labels, batch.indices)


def test_a_step_of_a_seed_is_always_the_same_batch() -> None:
    one, other = BatchStream(small_set(50), 8, seed=4), BatchStream(small_set(50), 8, seed=4)
    in_order = [one.batch(step).indices for step in range(20)]
    for step in (17, 3, 19, 0):
        assert torch.equal(other.batch(step).indices, in_order[step])
    assert not torch.equal(BatchStream(small_set(50), 8, seed=5).batch(0).indices, in_order[0])
    assert not torch.equal(in_order[0], in_order[6])


@pytest.mark.parametrize(("batch_size", "message"), [(11, "larger than the training set of 10"), (0, "at least 1")])
def test_impossible_batch_sizes_are_refused(batch_size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BatchStream(small_set(10), batch_size, seed=0)


def test_nothing_in_the_environment_reaches_the_test_set() -> None:
    package = Path(rlkd_env.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "data":
            continue
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "test_set" not in names, path
