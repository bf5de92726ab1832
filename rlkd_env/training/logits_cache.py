"""The teacher's logits on all training images: kept if the images' views come back, or stored with the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch, BatchStream, ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.models.engine import Engine
from rlkd_env.utils.randomness import seeded

_CHUNK = 256


class KnownLogits:
    """A teacher's logits ``(n, C)`` on views of the same images, for the next runs of a process that show these views.

    Args:
        size: The most memory that they take, in bytes; the oldest views go first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_seed: dict[int, Tensor] = {}

    def get(self, seed: int) -> Tensor | None:
        """Return the logits on the view of a seed if they are known."""
        return self._by_seed.get(seed)

    def add(self, seed: int, logits: Tensor) -> None:
        """Keep the logits on the view of a seed."""
        self._by_seed[seed] = logits
        while sum(kept.nbytes for kept in self._by_seed.values()) > self._size:
            del self._by_seed[next(iter(self._by_seed))]


class TeacherCache:
    """Keeps a teacher's logits ``(n, C)`` of every view, which are computed when the view is first shown.

    They follow from teacher and data alone, so a run's snapshots need not hold them.

    Args:
        engine: How the teacher is computed.
        teacher: The teacher, frozen.
        data: The training images.
        stream: The batches, whose views these are.
        known: What runs before this one with the same teacher and images have computed, and those after it will find.
    """

    def __init__(
        self, engine: Engine, teacher: nn.Module, data: ImageSet, stream: BatchStream, known: KnownLogits
    ) -> None:
        self._engine = engine
        self._teacher = teacher
        self._data = data
        self._stream = stream
        self._known = known
        self._logits: dict[int, Tensor] = {}

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits ``(N, C)`` on a batch, or None if its images are mixed or not from the stream."""
        if batch.view is None:
            return None
        seed = self._stream.view_seed(batch.view) if self._data.is_random else 0
        if seed not in self._logits:
            known = self._known.get(seed)
            if known is None:
                known = self._forward(seed)
                self._known.add(seed, known)
            self._logits[seed] = known
        return self._logits[seed][batch.indices]

    @torch.no_grad()
    def _forward(self, seed: int) -> Tensor:
        positions = torch.arange(len(self._data), device=self._data.labels.device)
        images = self._data.follow((chunk, seed) for chunk in positions.split(_CHUNK))
        with seeded(0, positions.device):  # a teacher that draws numbers says the same after a resume
            return torch.cat([self._engine.forward(self._teacher, self._engine.images(chunk)) for chunk in images])


class StoredLogits:
    """Serves logits ``(n, C)`` that came with the training images, whatever view of an image is shown."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits ``(N, C)`` on a batch, or None if its images are mixed."""
        return None if batch.partner_labels is not None else self._logits[batch.indices]


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
