"""The batches of several coming updates, drawn as one and asked of the teacher as one.

They follow from seed and step alone, and the teacher's logits do not depend on the student. A small batch costs a GPU
little more than the launches of the teacher's operations, so a dozen at a time cost hardly more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from rlkd_env.data import Batch, BatchStream

_IMAGES, _BYTES = 1024, 64 * 2**20
"""At most so many images, and bytes of images, are drawn ahead; larger batches keep a device busy by themselves."""


class BatchesAhead:
    """Draws the batches of a stream a block of steps at a time.

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
        self._steps = steps
        self._first = -1
        self._block: Batch | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 over all epochs, with the teacher's logits if it is asked."""
        size = self._stream.batch_size
        if self._steps is None:
            self._steps = self._worthwhile(step)
        position = step % self._stream.batches_per_epoch
        offset = position % self._steps
        if self._block is None or step - offset != self._first:
            self._first = step - offset
            self._block = self._draw(self._first)
        rows = slice(offset * size, (offset + 1) * size)
        block = self._block
        logits = None if block.teacher_logits is None else block.teacher_logits[rows]
        return Batch(block.images[rows], block.labels[rows], block.indices[rows], block.view, teacher_logits=logits)

    def _draw(self, first: int) -> Batch:
        """Return the batches of a block as one."""
        per_epoch, size = self._stream.batches_per_epoch, self._stream.batch_size
        epoch, position = divmod(first, per_epoch)
        end = min(position + (self._steps or 1), per_epoch)
        indices = self._stream.order(epoch)[position * size : end * size]
        block = self._stream.take(indices, first)
        return block if self._teacher is None else replace(block, teacher_logits=self._teacher(block.images))

    def _worthwhile(self, step: int) -> int:
        images = self._stream.batch(step).images
        batch_bytes = images.numel() * images.element_size()
        return max(1, min(_IMAGES // self._stream.batch_size, _BYTES // batch_bytes, self._stream.batches_per_epoch))
