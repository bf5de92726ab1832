"""Which images a batch holds, and the shares of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import folder_source, pixels, write_folder

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    BatchStream,
    FeatureImages,
    ImageSet,
    MemoryImages,
    Preprocessing,
    Share,
)
from rlkd_env.data.augmentation import ImageChanges, Mixing
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [False, True])
def test_shares_of_a_batch_are_pieces_of_it_in_the_same_random_views(is_streamed: bool, tmp_path: Path) -> None:
    if is_streamed:
        write_folder(tmp_path / "train", {"cat": 20, "dog": 20}, size=24)
        data = folder_source(tmp_path, image_size=16, augmentation="resized_crop").splits().train
        assert isinstance(data, StreamedImages)
    else:
        images = torch.from_numpy(pixels(30).transpose(0, 3, 1, 2).copy())
        data = MemoryImages(images, torch.arange(30) % 3, Preprocessing(crop_padding=2, flip=True))
    whole = BatchStream(data, 12, seed=1)
    streams = [BatchStream(data, 12, 1, share=Share(index, 3)) for index in range(3)]
    for step in (0, 1, 3):
        batches = [stream.batch(step) for stream in streams]
        assert torch.equal(torch.cat([batch.images for batch in batches]), whole.batch(step).images)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), whole.batch(step).labels)
        assert torch.equal(torch.cat([batch.indices for batch in batches]), whole.indices(step))
        assert {batch.view for batch in batches} == {whole.batch(step).view}
        taken = [stream.take(whole.indices(step), step, 7).images for stream in streams]
        assert torch.equal(torch.cat(taken), whole.take(whole.indices(step), step, 7).images)


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


def test_balanced_epochs_draw_every_class_as_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    data = MemoryImages(torch.zeros(1000, 1, 1, 1), labels)
    streams = [BatchStream(data, 50, seed=0, class_balanced=True) for _ in range(2)]
    drawn = torch.cat([streams[0].batch(step).labels for step in range(200)])  # ten epochs
    shares = drawn.bincount() / len(drawn)
    assert (shares - 1 / 3).abs().max() < 4 * (2 / 9 / 10_000) ** 0.5  # four standard deviations
    assert torch.equal(streams[1].batch(30).indices, streams[0].indices(30)), "they follow from seed and step"
    assert streams[0].batches_per_epoch == 20


def two_view_stream(is_streamed: bool, folder: Path, **options: object) -> BatchStream:
    if is_streamed:
        write_folder(folder / "train", {"cat": 20, "dog": 20}, size=24)
        data = folder_source(folder, image_size=16, augmentation="resized_crop").splits().train
    else:
        images = torch.from_numpy(pixels(30, size=16).transpose(0, 3, 1, 2).copy())
        data = MemoryImages(images, torch.arange(30) % 3, Preprocessing(crop_padding=2, flip=True))
    return BatchStream(data, 12, seed=1, two_views=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_second_view_is_of_the_same_images_and_follows_from_seed_and_step(is_streamed: bool, tmp_path: Path) -> None:
    stream = two_view_stream(is_streamed, tmp_path)
    plain = BatchStream(stream._data, 12, seed=1)
    in_order = [stream.batch(step) for step in range(4)]
    for step in (3, 0, 2):
        batch = stream.batch(step)
        assert torch.equal(batch.images, plain.batch(step).images), "the first view is that of a stream of one"
        assert plain.batch(step).second_images is None
        assert torch.equal(batch.second_images, in_order[step].second_images)
        taken = stream.take(stream.indices(step), step)
        assert torch.equal(taken.second_images, batch.second_images)
        assert not torch.equal(stream.take(stream.indices(step), step, 7).second_images, batch.second_images)
        differs = (batch.second_images != batch.images).flatten(start_dim=1).any(dim=1)
        assert differs.all()
    shares = [BatchStream(stream._data, 12, 1, share=Share(index, 3), two_views=True) for index in range(3)]
    joined = torch.cat([share.batch(1).second_images for share in shares])
    assert torch.equal(joined, in_order[1].second_images)


def test_a_second_view_is_changed_as_the_strong_changes_of_its_own_seed(tmp_path: Path) -> None:
    stream = two_view_stream(False, tmp_path)
    changes = ImageChanges("randaugment", random_erase=0.5)
    assert ImageChanges().stronger == changes
    assert ImageChanges("trivialaugment", 20, 0.7).stronger == ImageChanges("randaugment", 20, 0.7)
    data = MemoryImages(
        stream._data.pixels, stream._data.labels, Preprocessing(crop_padding=2, flip=True, changes=changes)
    )
    batch = stream.batch(0)
    assert torch.equal(batch.second_images, data.take(batch.indices, stream.second_view_seed(0)))
    assert stream.second_view_seed(0) != stream.view_seed(0)


def test_both_views_of_mixed_images_are_mixed_alike_in_single_batches_and_in_blocks(tmp_path: Path) -> None:
    plain = two_view_stream(False, tmp_path)
    mixed = two_view_stream(False, tmp_path, mixing=Mixing(1.0, 0.0))
    block = mixed.block(0, 2)
    for step in (0, 1):
        before, after = plain.batch(step), mixed.batch(step)
        share = after.label_share[0]
        is_swapped = not torch.equal(before.labels, after.labels) or not torch.equal(before.indices, after.indices)
        share = 1 - share if is_swapped else share
        for one, both in ((before.images, after.images), (before.second_images, after.second_images)):
            torch.testing.assert_close(both, share * one + (1 - share) * one.roll(1, 0))
        assert torch.equal(block.second_images[12 * step : 12 * (step + 1)], after.second_images)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MemoryImages(torch.zeros(9, 4, 8, 8), torch.zeros(9)), "RandAugment is for 1 or 3 channels, not 4"),
        (FeatureImages(torch.zeros(9, 1, 1, 5), torch.zeros(9), noise=1.0), "images are feature vectors"),
    ],
)
def test_where_there_is_no_second_view_it_is_told(data: ImageSet, message: str) -> None:
    with pytest.raises(UsageError, match=f"compares two views of every image, and here there is one, as {message}"):
        BatchStream(data, 3, seed=0, two_views=True)
