"""A curriculum: easy images first, as the student sees them (Zhao et al., arXiv 2106.10885)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data import Batch, BatchStream
from rlkd_env.errors import UsageError
from rlkd_env.sampling.base import SampledRun, Sampler
from rlkd_env.sampling.settings import Curriculum
from rlkd_env.utils.seeds import seeded_generator

_DRAW = 5  # keeps the draws apart from those of the stream and of exploration
_SNAPSHOT_BATCH = 512


class CurriculumSampler(Sampler):
    """Trains phase by phase on more of the images, in the order from easy to hard that a snapshot of the student gives.

    When a phase begins, the student as it is (the snapshot) is evaluated on all training images, without random views.
    An image is the easier the lower its cross-entropy. The phase draws from the easiest of them, each as often as any
    other; an epoch keeps its number of updates. The paper's abstract names the snapshots and the phases; what makes an
    image easy, the phases' number and their shares are our choice. A phase costs one forward of all training images.

    Raises:
        UsageError: if the run has fewer epochs than phases.
    """

    def __init__(self, settings: Curriculum, size: int, epochs: int, device: torch.device) -> None:
        if epochs < settings.phases:
            raise UsageError(f"a curriculum of {settings.phases} phases needs as many epochs, not {epochs}")
        self.settings = settings
        self._size = size
        self._epochs = epochs
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Forget the order, as at the start of a run."""
        self._phase, self._ordered_epoch = 0, -1
        self.pool = torch.arange(self._size, device=self._device)  # of the phase's images, from easy to hard

    def prepare(self, run: SampledRun) -> None:
        """Order the images anew if a phase begins; waits for the device then."""
        epoch = run.step_count // run.steps_per_epoch
        epoch = min(epoch, self._epochs - 1)  # after the last update one more batch is drawn
        phase = self.settings.phase(epoch, self._epochs)
        if phase == self._phase:
            return
        self._phase = phase
        count = max(round(self.settings.share(phase) * self._size), 1)
        self.pool = run.same_everywhere(self._difficulty(run)).argsort(stable=True)[:count]

    def batch(self, stream: BatchStream, step: int) -> Batch:
        """Return the batch of a step, from the images of the phase."""
        if self._phase == 0:
            return stream.batch(step)
        epoch, position = divmod(step, stream.batches_per_epoch)
        if epoch != self._ordered_epoch:
            self._ordered_epoch, self._order = epoch, self._shuffle(stream, epoch)
        chosen = self._order[position * stream.batch_size : (position + 1) * stream.batch_size]
        return stream.mixed(stream.take(chosen, step), step)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later batches depend on, independent of this object from now on."""
        return {"phase": self._phase, "pool": self.pool.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._phase, self._ordered_epoch = state["phase"], -1
        self.pool = state["pool"].to(self._device, copy=True)

    def _shuffle(self, stream: BatchStream, epoch: int) -> Tensor:
        """Return the images of an epoch: passes over the pool."""
        generator = seeded_generator(stream.seed, epoch, _DRAW)
        passes = math.ceil(stream.batches_per_epoch * stream.batch_size / len(self.pool))
        order = torch.cat([torch.randperm(len(self.pool), generator=generator) for _ in range(passes)])
        return self.pool[order.to(self._device)]

    @staticmethod
    @torch.no_grad()
    def _difficulty(run: SampledRun) -> Tensor:
        """Return ``(n,)`` cross-entropies of the student on all training images."""
        train = run.train
        run.student.eval()
        chunks = train.chunks(_SNAPSHOT_BATCH)
        losses = [
            F.cross_entropy(run.student(images), labels, reduction="none")
            for images, labels in zip(chunks, train.labels.split(_SNAPSHOT_BATCH), strict=True)
        ]
        run.student.train()
        return torch.cat(losses)
