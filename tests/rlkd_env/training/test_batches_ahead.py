"""Batches drawn and asked of the teacher ahead: the same batches, block by block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlkd_env.data import BatchStream, MemoryImages, Preprocessing
from rlkd_env.training.batches_ahead import BatchesAhead

IMAGES = 70
PER_EPOCH = 8


@pytest.fixture
def stream() -> BatchStream:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, 3, 6, 6), generator=generator, dtype=torch.uint8)
    preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, crop_padding=2, flip=True)
    return BatchStream(MemoryImages(pixels, torch.arange(IMAGES) % 10, preprocessing), PER_EPOCH, seed=3)


def counted(calls: list[int]) -> Callable[[Tensor], Tensor]:
    """Return a teacher that notes how many images it is asked about at a time."""

    def teacher(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1)[:, :10]

    return teacher


@pytest.mark.parametrize("steps", [1, 3, 8, None])
def test_every_batch_is_that_of_the_stream(stream: BatchStream, steps: int | None) -> None:
    calls: list[int] = []
    ahead = BatchesAhead(stream, counted(calls), steps)
    for step in range(2 * stream.batches_per_epoch):
        batch, expected = ahead.batch(step), stream.batch(step)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(batch.indices, expected.indices)
        assert batch.view == expected.view
        assert batch.teacher_logits is not None
        assert torch.equal(batch.teacher_logits, expected.images.flatten(1)[:, :10])
    assert sum(calls) == 2 * stream.batches_per_epoch * PER_EPOCH, "the teacher sees every image of an epoch once"
    per_epoch = -(-stream.batches_per_epoch // (steps or stream.batches_per_epoch))
    assert len(calls) == 2 * per_epoch


def test_blocks_start_at_fixed_steps_wherever_a_run_goes_on(stream: BatchStream) -> None:
    calls: list[int] = []
    ahead = BatchesAhead(stream, counted(calls), steps=4)
    ahead.batch(6)  # epochs have 8 steps
    assert calls == [4 * PER_EPOCH]
    ahead.batch(4)
    assert len(calls) == 1


def test_without_a_teacher_there_are_images_alone(stream: BatchStream) -> None:
    batch = BatchesAhead(stream, steps=2).batch(0)
    assert batch.teacher_logits is None
    assert torch.equal(batch.images, stream.batch(0).images)
