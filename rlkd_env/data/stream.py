"""Batches of a training set in an order that follows from the seed and the step alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rlkd_env.data.boxes import Boxes
from rlkd_env.data.images import ImageSet, Request
from rlkd_env.errors import UsageError
from rlkd_env.utils.seeds import mixed_seed, seeded_generator

_VIEW = 2
"""Keeps the draws of random views apart from those of the order, which are seeded by two numbers."""


@dataclass(frozen=True)
class Batch:
    """N labelled images.

    Attributes:
        images: ``(N, channels, height, width)``.
        labels: ``(N,)``.
        indices: ``(N,)`` position of every image in the training set.
        view: number of the stream's random views that the images are shown in, or None where they are others or mixed.
        partner_labels: ``(N,)`` classes of the images that were mixed in, or None where nothing was. Labels and
            indices are those of the image with the larger share.
        label_share: ``(N,)`` shares of the labels' images in the mix, in ``(0, 1]``, or None likewise.
        boxes: where the objects of the images are, or None in classification.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    view: int | None = None
    partner_labels: Tensor | None = None
    label_share: Tensor | None = None
    boxes: Boxes | None = None


@dataclass(frozen=True)
class Share:
    """What one process sees of every batch: one of several equal pieces, as they follow each other.

    Attributes:
        index: of the piece, from 0.
        count: of pieces; with 1 a share is the whole batch.
    """

    index: int = 0
    count: int = 1

    def of(self, values: Tensor, dim: int = 0) -> Tensor:
        """Return the share of values for a whole batch, whose size ``count`` must divide."""
        size = values.shape[dim] // self.count
        return values.narrow(dim, self.index * size, size)


WHOLE = Share()


class BatchStream:
    """Full batches of an epoch-wise shuffled training set.

    Step ``t`` of a seed is always the same batch of the same random views, so the stream has no state to save. The
    images left over at the end of an epoch (fewer than a batch, other ones every epoch) are dropped.

    Args:
        data: the training set, on the device that the batches shall be on.
        batch_size: images a batch, N.
        seed: of the order and of the random views.
        views: random views of every image, shown epoch after epoch in turn; None shows new ones in every epoch.
        share: of every batch that is handed out; the batches are the same for all shares.

    Attributes:
        seed: of the order and of the random views.
        views: random views of every image, or None.
        batch_size: images a whole batch, N.
        share: of every batch that is handed out.
        batches_per_epoch: batches in a pass over the data.

    Raises:
        UsageError: if a batch is empty or larger than the data, or there is not a view.
    """

    def __init__(
        self, data: ImageSet, batch_size: int, seed: int, views: int | None = None, share: Share = WHOLE
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        if batch_size > len(data):
            raise UsageError(f"a batch of {batch_size} is larger than the training set of {len(data)} images")
        if views is not None and views < 1:
            raise UsageError(f"every image needs at least 1 view, not {views}")
        self._data = data
        self.batch_size = batch_size
        self.seed = seed
        self.views = views
        self.share = share
        self.batches_per_epoch = len(data) // batch_size
        self._order = lru_cache(maxsize=2)(self._shuffle)
        self._ahead: Iterator[Tensor] = iter(())
        self._next_step = -1

    def batch(self, step: int) -> Batch:
        """Return the share of a step's batch, counted from 0 over all epochs; quickest for one step after the other."""
        if step != self._next_step:
            self._ahead = self._data.follow(self._requests(step))
        self._next_step = step + 1
        indices, view = self.share.of(self.indices(step)), self.view(step)
        boxes = self._data.take_boxes(indices, self.view_seed(view))
        return Batch(next(self._ahead), self._data.labels[indices], indices, view, boxes=boxes)

    def indices(self, step: int) -> Tensor:
        """Return ``(N,)`` positions of a step's images, those of the whole batch, in the training set."""
        epoch, position = divmod(step, self.batches_per_epoch)
        return self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def order(self, epoch: int) -> Tensor:
        """Return ``(n,)`` positions in the order of an epoch; its batches follow one another from the start."""
        return self._order(epoch)

    def view(self, step: int) -> int:
        """Return the number of the random views, below ``views``, that a step's epoch shows the images in."""
        epoch = step // self.batches_per_epoch
        return epoch if self.views is None else epoch % self.views

    def take(self, indices: Tensor, step: int, purpose: int = 0) -> Batch:
        """Return the share of the images at ``(N,)`` positions of the training set, in the views of a step's epoch.

        Args:
            indices: the positions of a whole batch.
            step: counted from 0 over all epochs.
            purpose: other purposes get other views.
        """
        indices, view = self.share.of(indices), self.view(step)
        seed = self.view_seed(view, purpose)
        images, boxes = self._data.take(indices, seed), self._data.take_boxes(indices, seed)
        return Batch(images, self._data.labels[indices], indices, None if purpose else view, boxes=boxes)

    def view_seed(self, view: int, purpose: int = 0) -> int:
        """Return the seed of the random views of this number."""
        return mixed_seed(self.seed, view, _VIEW, purpose)

    def _requests(self, step: int) -> Iterator[Request]:
        for following in itertools.count(step):
            yield self.share.of(self.indices(following)), self.view_seed(self.view(following))

    def _shuffle(self, epoch: int) -> Tensor:
        order = torch.randperm(len(self._data), generator=seeded_generator(self.seed, epoch))
        return order.to(self._data.labels.device)
