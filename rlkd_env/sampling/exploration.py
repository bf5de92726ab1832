"""Efficient exploration (arXiv 2407.00115): batches of instances that an agent learns a lot from, with mix-up."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data import Batch, BatchStream
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.sampling.base import SampledRun, Sampler
from rlkd_env.sampling.settings import Exploration
from rlkd_env.utils.seeds import seeded_generator

_DRAW, _LARGER_VIEW, _SMALLER_VIEW = 1, 1, 2  # keep the draws apart from each other and from the stream's


class Explorer(Sampler):
    """Keeps the history of predictive entropy of every training image and draws the batches of the exploring epochs.

    An image's score is the mean entropy of the student's predictions on it so far. Only predictions on the image
    itself count, not those on a mix. Ranks and pairs are made anew at the start of an exploring epoch and stay until
    its end.
    """

    observes_batches = True

    def __init__(self, settings: Exploration, size: int, device: torch.device) -> None:
        self.settings = settings
        self._size = size
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at the start of a run."""
        self._entropy_sum = torch.zeros(self._size, device=self._device)
        self._count = torch.zeros(self._size, device=self._device)
        self._paired_epoch = 0
        nothing = torch.empty(0, dtype=torch.int64, device=self._device)
        self._uncertain, self._confident = nothing, nothing

    @property
    def scores(self) -> Tensor:
        """``(n,)`` mean entropies in nats, on the device; NaN for images that the student has not seen."""
        return self._entropy_sum / self._count

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The K pairs of the last exploring epoch, the most uncertain image first; none before that epoch.

        They are ``(K,)`` indices of the uncertain images, those of the confident ones, and shares of the former.
        """
        first, last = self.settings.first_share, self.settings.last_share
        shares = torch.linspace(first, last, len(self._uncertain), device=self._device)
        return self._uncertain, self._confident, shares

    def observe(self, outputs: InstanceOutputs) -> None:
        """Add a batch to the history; does not wait for the device.

        Raises:
            ValueError: if the outputs do not name their training images.
        """
        if outputs.indices is None:
            raise ValueError("the history needs the indices of the training images")
        entropy = torch.special.entr(outputs.student_probabilities).sum(dim=-1)
        counts = (entropy.isfinite() & ~outputs.is_mixed).to(self._count.dtype)
        self._entropy_sum.index_add_(0, outputs.indices, entropy.nan_to_num().to(self._count.dtype) * counts)
        self._count.index_add_(0, outputs.indices, counts)

    def prepare(self, run: SampledRun) -> None:
        """Agree with the other processes of the run on the history, at the start of every epoch.

        Sums on a GPU may differ by their order; the ranks that follow from them must not.
        """
        if run.step_count % run.steps_per_epoch == 0:
            self._entropy_sum = run.same_everywhere(self._entropy_sum)
            self._count = run.same_everywhere(self._count)

    def metrics(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return ``mixed_share``, the share of the instances that are mixes of two images."""
        return {"mixed_share": outputs.is_mixed.float().mean()}

    def batch(self, stream: BatchStream, step: int) -> Batch:
        """Return the batch of a step, which follows from the stream's seed, the step and the history alone."""
        epoch = step // stream.batches_per_epoch + 1
        if not self.settings.explores(epoch):
            return stream.batch(step)
        if epoch != self._paired_epoch:
            self._pair_up(epoch)
        uncertain, confident, shares = self.pairs
        if len(shares) == 0:
            return stream.batch(step)
        if self.settings.batches == "pairs":
            chosen = self._draw(stream, step)
            return _mix(stream, step, uncertain[chosen], confident[chosen], shares[chosen])
        indices = stream.indices(step)
        pair_of = torch.full((self._size,), -1, device=self._device)
        pair_of[confident] = torch.arange(len(shares), device=self._device)
        pair = pair_of[indices]
        is_mixed = pair >= 0
        return _mix(
            stream,
            step,
            uncertain=torch.where(is_mixed, uncertain[pair], indices),
            confident=indices,
            share=torch.where(is_mixed, shares[pair], 1.0),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later batches depend on, independent of this object from now on."""
        names = ("entropy_sum", "count", "paired_epoch", "uncertain", "confident")
        return copy.deepcopy({name: getattr(self, f"_{name}") for name in names})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._paired_epoch = state["paired_epoch"]
        for name in ("entropy_sum", "count", "uncertain", "confident"):
            setattr(self, f"_{name}", state[name].to(self._device, copy=True))

    def _pair_up(self, epoch: int) -> None:
        """Rank the images that have a history, and pair uncertain with confident ones, rank by rank."""
        known = self._count.nonzero().squeeze(-1)
        ranked = known[self.scores[known].argsort(descending=True, stable=True)]
        total = len(ranked)
        low, high = self.settings.uncertain_ranks
        count = max(round((high - low) * total), 1) if total > 1 else 0
        starts = [min(round(rank * total), total - count) for rank in (low, self.settings.confident_ranks[0])]
        self._uncertain, self._confident = (ranked[start : start + count] for start in starts)
        self._paired_epoch = epoch

    def _draw(self, stream: BatchStream, step: int) -> Tensor:
        """Return ``(N,)`` random pairs, each as often as any other to within one."""
        generator = seeded_generator(stream.seed, step, _DRAW)
        count = len(self._uncertain)
        passes = math.ceil(stream.batch_size / count)
        drawn = torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)])
        return drawn[: stream.batch_size].to(self._device)


def _mix(stream: BatchStream, step: int, uncertain: Tensor, confident: Tensor, share: Tensor) -> Batch:
    """Mix the images at ``(N,)`` indices; ``share`` ``(N,)`` is that of the uncertain ones. The larger share is first.

    All arguments are for the whole batch, of which the stream hands out its share. A mix for detection shows the
    objects of both images, whatever their shares, as in arXiv 1902.04103.
    """
    is_swapped = share < 0.5
    larger = stream.take(torch.where(is_swapped, confident, uncertain), step, _LARGER_VIEW)
    smaller = stream.take(torch.where(is_swapped, uncertain, confident), step, _SMALLER_VIEW)
    share = stream.share.of(torch.where(is_swapped, 1.0 - share, share))
    weight = share.view(-1, 1, 1, 1)
    images = weight * larger.images + (1.0 - weight) * smaller.images
    second = boxes = None
    if larger.second_images is not None and smaller.second_images is not None:
        second = weight * larger.second_images + (1.0 - weight) * smaller.second_images
    if larger.boxes is not None and smaller.boxes is not None:
        boxes = larger.boxes.joined(smaller.boxes.of_those(share < 1.0))
    return Batch(
        images,
        larger.labels,
        larger.indices,
        partner_labels=smaller.labels,
        label_share=share,
        boxes=boxes,
        second_images=second,
    )
