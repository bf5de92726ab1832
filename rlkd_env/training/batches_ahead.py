"""The batches of several coming updates, drawn as one and asked of the teacher as one.

They follow from seed and step alone, and the teacher's logits do not depend on the student. A small batch costs a GPU
little more than the launches of the teacher's operations, so a dozen at a time cost hardly more than one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlkd_env.data import Batch, BatchStream

_IMAGES, _BYTES = 1024, 64 * 2**20
"""At most so many images, and bytes of images, are drawn ahead; larger batches keep a device busy by themselves."""


@dataclass(frozen=True)
class _Block:
    """The batches of the steps from the first one on, as one, and when a GPU has them ready."""

    first: int
    batch: Batch
    ready: torch.cuda.Event | None


class BatchesAhead:
    """Draws the batches of a stream a block of steps at a time; a GPU draws the next block while this one is used.

    Blocks start at fixed steps of an epoch, so that a run that goes on in the middle of one draws the same block.

    Args:
        stream: the batches.
        teacher: from images ``(n, channels, height, width)`` to the teacher's logits ``(n, C)``; None does not ask it.
        steps: the number of batches in a block; None takes as many as are worth it.
    """

    def __init__(
        self, stream: BatchStream, teacher: Callable[[Tensor], Tensor] | None = None, steps: int | None = None
    ) -> None:
        self._stream, self._teacher = stream, teacher
        self._steps = steps or self._worthwhile()
        device = stream.order(0).device
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._block: _Block | None = None
        self._next: _Block | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 over all epochs, with the teacher's logits if it is asked."""
        offset = step % self._stream.batches_per_epoch % self._steps
        block = self._block_from(step - offset)
        size = self._stream.batch_size
        rows = slice(offset * size, (offset + 1) * size)
        return block.rows(rows)

    def _block_from(self, first: int) -> Batch:
        """Return the batches from a step on as one, and have a GPU draw the block after it."""
        if self._block is None or self._block.first != first:
            foreseen = self._next is not None and self._next.first == first
            self._block = self._next if foreseen else self._draw(first)
            assert self._block is not None
            self._wait_for(self._block)
            if self._beside is not None:
                self._next = self._draw(first + self._length(first))
        return self._block.batch

    def _draw(self, first: int) -> _Block:
        beside = contextlib.nullcontext() if self._beside is None else torch.cuda.stream(self._beside)
        with beside:
            batch = self._stream.block(first, self._length(first))
            if self._teacher is not None:
                batch = replace(batch, teacher_logits=self._teacher(batch.images))
            return _Block(first, batch, None if self._beside is None else self._beside.record_event())

    def _wait_for(self, block: _Block) -> None:
        """Let what follows wait until a block is there, and keep its memory until what follows is done."""
        if block.ready is None:
            return
        current = torch.cuda.current_stream()
        current.wait_event(block.ready)
        for values in block.batch.tensors().values():
            values.record_stream(current)

    def _length(self, first: int) -> int:
        """Return the number of steps in the block from a step on, which ends with the epoch at the latest."""
        return min(self._steps, self._stream.batches_per_epoch - first % self._stream.batches_per_epoch)

    def _worthwhile(self) -> int:
        images = self._stream.batch(0).images
        batch_bytes = images.numel() * images.element_size()
        return max(1, min(_IMAGES // self._stream.batch_size, _BYTES // batch_bytes, self._stream.batches_per_epoch))
