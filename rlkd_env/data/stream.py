"""The stream of training batches, whose order depends on nothing but the seed and the step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from rlkd_env.data.augmentation import Mixing
from rlkd_env.data.boxes import Boxes
from rlkd_env.data.images import ImageSet, Request
from rlkd_env.errors import UsageError
from rlkd_env.utils.seeds import mixed_seed, seeded_generator

_VIEW = 2
"""Separates the seeds of random views from those of the order, which are made of two numbers."""
_MIX = 3
"""Separates the seeds of mixes from those of other draws of a step."""
_SECOND_VIEW = 4
"""Separates the seeds of second views from those of first ones."""


@dataclass(frozen=True)
class Batch:
    """N labelled images.

    Attributes:
        images: The images ``(N, channels, height, width)``.
        labels: The classes ``(N,)``; of a mix of two images, that of the larger share.
        indices: The images' positions ``(N,)`` in the training set; of a mix, that of the larger share.
        view: The number of the stream's random views that the images show, or None if they show others or are mixed.
        partner_labels: The classes ``(N,)`` of the images mixed in, or None if nothing was mixed.
        label_share: The shares ``(N,)`` in ``(0, 1]`` of the labels' images in the mix, or None if nothing was mixed.
        boxes: The boxes of the images' objects, or None in classification.
        teacher_logits: The teacher's logits ``(N, C)`` on the images, if it has been asked already, or None.
        second_images: A second, more strongly changed view ``(N, channels, height, width)`` of the same images, mixed
            as they are, or None if there is one view.
        second_teacher_logits: The teacher's logits ``(N, C)`` on that view, if it has been asked already, or None.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    view: int | None = None
    partner_labels: Tensor | None = None
    label_share: Tensor | None = None
    boxes: Boxes | None = None
    teacher_logits: Tensor | None = None
    second_images: Tensor | None = None
    second_teacher_logits: Tensor | None = None

    def rows(self, rows: slice) -> Batch:
        """Return the batch of some of the images, in classification."""
        return replace(self, **{name: values[rows] for name, values in self.tensors().items()})

    def tensors(self) -> dict[str, Any]:
        """Return the tensors that are there, by name."""
        named = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        return {name: value for name, value in named if isinstance(value, Tensor)}

    @staticmethod
    def join(batches: Sequence[Batch]) -> Batch:
        """Return batches of the same kind as one, in classification."""
        parts = [batch.tensors() for batch in batches]
        joined: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return replace(batches[0], **joined)


@dataclass(frozen=True)
class Share:
    """The consecutive piece of every batch that one process of a distributed run sees.

    Attributes:
        index: The index of the piece, from 0.
        count: The number of equal pieces; 1 for the whole batch.
    """

    index: int = 0
    count: int = 1

    def of(self, values: Tensor, dim: int = 0) -> Tensor:
        """Return this share of a whole batch's values, whose number ``count`` must divide."""
        size = values.shape[dim] // self.count
        return values.narrow(dim, self.index * size, size)


WHOLE = Share()


class BatchStream:
    """Full batches of an epoch-wise shuffled training set.

    Step t of a seed is always the same batch of the same random views, so the stream has no state to save. The images
    left over at the end of an epoch (less than a batch, different ones in every epoch) are dropped.

    Args:
        data: The training set, on the device of the batches.
        batch_size: The number N of images per batch.
        seed: The seed of the order and of the random views.
        views: The number of random views per image, shown in turn epoch by epoch; None draws new ones in every epoch.
        share: The share of every batch to return; the whole batches are the same for all shares.
        mixing: Mixes the images of every batch, with others of the share; None leaves them as they are.
        class_balanced: Whether the images of an epoch are drawn with replacement, every class as often as any other.
        two_views: Whether every batch has a second view of its images, see
            :meth:`~rlkd_env.data.ImageSet.in_stronger_views`. What reads ahead does so for each of them.

    Attributes:
        batches_per_epoch: The number of batches in a pass over the data.
        order: Returns the positions ``(n,)`` in the order of an epoch, which is cut into batches from the start.
        second_data: The images as second views show them, or None if there is one view.

    Raises:
        UsageError: If a batch would be empty or larger than the data, ``views`` is less than 1, or there is no second
            view of these images.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        seed: int,
        views: int | None = None,
        share: Share = WHOLE,
        mixing: Mixing | None = None,
        class_balanced: bool = False,
        two_views: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        if batch_size > len(data):
            raise UsageError(f"a batch of {batch_size} is larger than the training set of {len(data)} images")
        if views is not None and views < 1:
            raise UsageError(f"every image needs at least 1 view, not {views}")
        self._data, self.batch_size, self.seed = data, batch_size, seed
        self.views, self.share = views, share
        self._mixing = mixing
        self.batches_per_epoch = len(data) // batch_size
        order = partial(_balanced, data.labels) if class_balanced else partial(_shuffled, len(data))
        self.order = lru_cache(maxsize=2)(partial(order, data.labels.device, seed))
        self.second_data = data.in_stronger_views() if two_views else None
        self._ahead: Iterator[tuple[Tensor, Tensor | None]] = iter(())
        self._next_step = -1

    def batch(self, step: int) -> Batch:
        """Return this share of a step's batch. Steps count from 0 over all epochs; consecutive ones are fastest."""
        if step != self._next_step:
            # What is asked for holds a copy that reads nothing ahead. A circle would be found, and the processes in it
            # ended, at some later time: perhaps in a process forked since, which may not end them.
            self._ahead = iter(())
            self._ahead = copy.copy(self)._following(step)
        self._next_step = step + 1
        indices, view = self.share.of(self.indices(step)), self.view(step)
        boxes = self._data.take_boxes(indices, self.view_seed(view))
        images, second = next(self._ahead)
        batch = Batch(images, self._data.labels[indices], indices, view, boxes=boxes, second_images=second)
        return self.mixed(batch, step)

    def block(self, first: int, count: int) -> Batch:
        """Return the batches of so many steps of an epoch as one, in classification, as :meth:`batch` gives them."""
        epoch, position = divmod(first, self.batches_per_epoch)
        size = self.batch_size
        block = self.take(self.order(epoch)[position * size : (position + count) * size], first)
        if self._mixing is None:
            return block
        batches = (block.rows(slice(number * size, (number + 1) * size)) for number in range(count))
        return Batch.join([self.mixed(batch, first + number) for number, batch in enumerate(batches)])

    def mixed(self, batch: Batch, step: int) -> Batch:
        """Return a step's batch with its images mixed, if that is asked for; the class of the larger share is first."""
        if self._mixing is None:
            return batch
        seed, second = mixed_seed(self.seed, step, _MIX), batch.second_images
        images, share = self._mixing(batch.images, seed)
        second = None if second is None else self._mixing(second, seed)[0]
        labels, partners, indices = batch.labels, batch.labels.roll(1), batch.indices
        if share < 0.5:
            labels, partners, indices, share = partners, labels, indices.roll(1), 1.0 - share
        shares = torch.full(labels.shape, share, device=images.device)
        return Batch(images, labels, indices, partner_labels=partners, label_share=shares, second_images=second)

    def indices(self, step: int) -> Tensor:
        """Return the positions ``(N,)`` in the training set of the images of a step's whole batch."""
        epoch, position = divmod(step, self.batches_per_epoch)
        return self.order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def view(self, step: int) -> int:
        """Return the number of the random views, less than ``views``, that a step's epoch shows."""
        epoch = step // self.batches_per_epoch
        return epoch if self.views is None else epoch % self.views

    def take(self, indices: Tensor, step: int, purpose: int = 0) -> Batch:
        """Return this share of the images at a whole batch's positions ``(N,)``, unmixed, in a step's views.

        A ``purpose`` other than 0 gives other random views.
        """
        indices, view = self.share.of(indices), self.view(step)
        seed = self.view_seed(view, purpose)
        images, boxes = self._data.take(indices, seed), self._data.take_boxes(indices, seed)
        known, second = (None if purpose else view), None
        if self.second_data is not None:
            second = self.second_data.take(indices, self.second_view_seed(view, purpose))
        return Batch(images, self._data.labels[indices], indices, known, boxes=boxes, second_images=second)

    def view_seed(self, view: int, purpose: int = 0) -> int:
        """Return the seed of the random views with this number."""
        return mixed_seed(self.seed, view, _VIEW, purpose)

    def second_view_seed(self, view: int, purpose: int = 0) -> int:
        """Return the seed of the second random views with this number."""
        return mixed_seed(self.seed, view, _SECOND_VIEW, purpose)

    def _following(self, step: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Return the images of the steps from one on, and a second view of them if there is one."""
        images = self._data.follow(self._requests(step, self.view_seed))
        if self.second_data is None:
            return zip(images, itertools.repeat(None), strict=False)
        return zip(images, self.second_data.follow(self._requests(step, self.second_view_seed)), strict=True)

    def _requests(self, step: int, seed_of: Callable[[int], int]) -> Iterator[Request]:
        for following in itertools.count(step):
            yield self.share.of(self.indices(following)), seed_of(self.view(following))


def _shuffled(count: int, device: torch.device, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=seeded_generator(seed, epoch)).to(device)


def _balanced(labels: Tensor, device: torch.device, seed: int, epoch: int) -> Tensor:
    """Return as many positions as there are images, of which every class has about the same share."""
    classes = labels.cpu()
    weights = 1.0 / classes.bincount()[classes].double()
    generator = seeded_generator(seed, epoch)
    return torch.tensor(list(WeightedRandomSampler(weights.tolist(), len(classes), generator=generator))).to(device)
