"""What the teacher says about all training images: kept if the images' views come back, or stored with the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch, BatchStream, ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.models.engine import Engine
from rlkd_env.models.taps.features import Features
from rlkd_env.utils.notices import tell
from rlkd_env.utils.randomness import seeded

_CHUNK = 256


@dataclass(frozen=True)
class View:
    """A teacher's logits ``(n, C)`` on one view of n images, in float32, and its features, if they were asked for."""

    logits: Tensor
    features: Features | None = None

    @property
    def num_bytes(self) -> int:
        """The memory that it takes."""
        return sum(values.nbytes for values in (self.logits, *(self.features.tensors if self.features else ())))

    @staticmethod
    def joined(parts: Sequence[View]) -> View:
        """Return what was asked about one part of the images after the other as one."""
        logits = torch.cat([part.logits for part in parts])
        features = [part.features for part in parts if part.features is not None]
        if not features:
            return View(logits)
        places = zip(*(part.tensors for part in features), strict=True)
        whole = iter([torch.cat(place) for place in places])
        return View(logits, features[0].map(lambda _: next(whole)))


class KnownViews:
    """What a teacher says about views of the same images, for the next runs of a process that show these views.

    A copy, and one that another process gets, knows nothing at first.

    Args:
        size: The most memory that it takes, in bytes; the oldest views go first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._views: dict[tuple[int, bool], View] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_size": self._size, "_views": {}}

    def get(self, seed: int, with_features: bool = False) -> View | None:
        """Return what is known about the view of a seed."""
        return self._views.get((seed, with_features))

    def add(self, seed: int, view: View) -> None:
        """Keep what the teacher says about the view of a seed."""
        self._views[seed, view.features is not None] = view
        while sum(kept.num_bytes for kept in self._views.values()) > self._size:
            del self._views[next(iter(self._views))]


class TeacherCache:
    """Keeps a teacher's logits ``(n, C)`` of every view, or its logits and features, from when a view is first shown.

    They follow from teacher and data alone, so a run's snapshots need not hold them. Features are kept in the precision
    in which they are computed, and only if those of all views fit into the memory.

    Args:
        engine: How the teacher is computed.
        frozen: The teacher, frozen, which gives the logits.
        network: The teacher as it was given, which gives features.
        data: The training images.
        stream: The batches, whose views these are.
        size: The most memory that features may take, in bytes.
        known: What runs before this one with the same teacher and images have computed, and those after it will find.
    """

    def __init__(
        self,
        engine: Engine,
        frozen: nn.Module,
        network: nn.Module,
        data: ImageSet,
        stream: BatchStream,
        size: int,
        known: KnownViews,
    ) -> None:
        self._engine = engine
        self._frozen = frozen
        self._network = network
        self._data = data
        self._stream = stream
        self._size = size
        self._known = known
        self._views: dict[tuple[int, bool], View] = {}

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits ``(N, C)`` on a batch, or None if its images are mixed or not from the stream."""
        if batch.view is None:
            return None
        return self._view(self._data, self._seed(batch.view)).logits[batch.indices]

    def second_logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits ``(N, C)`` on a batch's second view, or None if there is none that comes back."""
        data = self._stream.second_data
        if data is None or batch.view is None or not self._data.is_random:  # seeds share a cache if the first is plain
            return None
        return self._view(data, self._stream.second_view_seed(batch.view)).logits[batch.indices]

    def features(self, batch: Batch) -> tuple[Tensor, Features] | None:
        """Return the teacher's logits ``(N, C)`` and features on a batch, or None where it has to be asked."""
        if batch.view is None or not self._keeps_features:
            return None
        view = self._view(self._data, self._seed(batch.view), with_features=True)
        assert view.features is not None
        features = view.features.map(lambda values: values[batch.indices])
        return view.logits[batch.indices], features.to(view.logits.dtype)

    def _seed(self, view: int) -> int:
        return self._stream.view_seed(view) if self._data.is_random else 0

    def _view(self, data: ImageSet, seed: int, with_features: bool = False) -> View:
        if (seed, with_features) not in self._views:
            view = self._known.get(seed, with_features)
            if view is None:
                view = self._forward(data, len(data), seed, with_features)
                self._known.add(seed, view)
            self._views[seed, with_features] = view
        return self._views[seed, with_features]

    @cached_property
    def _keeps_features(self) -> bool:
        """Whether the features of all views fit; recorded updates ask the teacher, as they cannot look up a view."""
        if self._engine.captured:
            return False
        views = (self._stream.views or 1) if self._data.is_random else 1
        needed = views * len(self._data) * self._forward(self._data, 1, seed=0, with_features=True).num_bytes
        fits = needed <= self._size
        if not fits and self._stream.views is not None and self._size:
            _tell_size(needed, self._size)
        return fits

    @torch.no_grad()
    def _forward(self, data: ImageSet, count: int, seed: int, with_features: bool) -> View:
        positions = torch.arange(count, device=data.labels.device)
        images = data.follow((chunk, seed) for chunk in positions.split(_CHUNK))
        with seeded(0, positions.device):  # a teacher that draws numbers says the same after a resume
            parts = [self._ask(self._engine.images(chunk), with_features) for chunk in images]
        return View.joined(parts)

    def _ask(self, images: Tensor, with_features: bool) -> View:
        if not with_features:
            return View(self._engine.forward(self._frozen, images))
        logits, features = self._engine.computed_with_features(self._network, images)
        return View(logits.float() if self._engine.precision == "bfloat16" else logits, features)


@cache
def _tell_size(needed: int, size: int) -> None:
    """Tell once in a process that views come back, but what is said about them takes too much memory."""
    need, have = (f"{number / 2**20:,.0f} MiB" for number in (needed, size))
    tell(f"the teacher's features on all views take {need}, more than --teacher-cache-mib ({have}): it is asked again")


class StoredLogits:
    """Serves logits ``(n, C)`` that came with the training images, whatever view of an image is shown."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits ``(N, C)`` on a batch, or None if its images are mixed."""
        return None if batch.partner_labels is not None else self._logits[batch.indices]

    def second_logits(self, batch: Batch) -> None:
        """Return None, as there is no second view of these images."""

    def features(self, batch: Batch) -> None:
        """Return None, as there are no features."""


class StoredTeacher(nn.Module):
    """Stands for a teacher of which only the logits on the training images are there."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse to compute logits.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the teacher's logits are stored with the training images: its features, and its logits on other or mixed "
            "images, cannot be computed"
        )
