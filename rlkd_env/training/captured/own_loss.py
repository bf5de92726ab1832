"""The update of a network on its own loss, captured as CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch
from rlkd_env.models.graphs import Recorder
from rlkd_env.tasks import Task
from rlkd_env.training.captured.by_kind import RecordedByKind, fill, own_copy
from rlkd_env.training.own_loss import OwnLossUpdate
from rlkd_env.training.update import Optimization

_TOLERANCE = 0.05
"""Share of the loss that a replayed one may differ from a plain one by; a wrong one is far off."""


@dataclass
class _Captured:
    """The memory that recorded work reads and writes, and its two parts; ``expected`` is the loss of a plain one."""

    batch: Batch
    rate: Tensor
    expected: Tensor | None
    loss: Tensor = field(init=False)
    forward: Callable[[], None] = field(init=False)
    update: Callable[[], None] = field(init=False)


class CapturedOwnLossUpdate(OwnLossUpdate):
    """An update that is captured for every kind of batch and then replayed, as that of a run's student is.

    What cannot be captured is computed operation by operation, and :attr:`why_plain` says why.
    """

    def __init__(self, task: Task, network: nn.Module, optimization: Optimization, seed: int) -> None:
        super().__init__(task, network, optimization, seed)
        reason = None if task.follows_logits else "a detector's regions differ in number from image to image"
        self._recorder = Recorder(self._device)
        self._captured: RecordedByKind[_Captured] = RecordedByKind(network, reason)

    @property
    def why_plain(self) -> str | None:
        """Why updates are computed operation by operation; None if they are captured, or will be after a few."""
        return self._captured.reason

    def __call__(self, batch: Batch, step: int) -> Tensor:
        """Make an update, and return the loss before it, without dimensions and gradient."""
        captured = self._captured.of(batch, lambda: self._capture(batch, step))
        if captured is None or not self._replay_forward(captured, batch, step):
            self._captured.plain_updates += 1
            with self._recorder.warming_up():
                return super().__call__(batch, step)
        captured.rate.fill_(self.optimization.learning_rate)
        with self._seeded(step):
            captured.update()
        self.optimization.follow_schedule()
        return captured.loss.detach().clone()

    def _replay_forward(self, captured: _Captured, batch: Batch, step: int) -> bool:
        """Return whether the replay, if it is the first, computes what a plain forward does."""
        fill(captured.batch, batch)
        buffers = [] if captured.expected is None else [(own, own.clone()) for own in self.network.buffers()]
        with self._seeded(step):
            captured.forward()
        expected, captured.expected = captured.expected, None
        if expected is None or bool((captured.loss.detach() - expected).abs() <= _TOLERANCE * expected.abs()):
            return True
        for own, before in buffers:
            own.data.copy_(before)
        self._captured.give_up("replayed, the network computes something else than before")
        return False

    def _seeded(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Seed a replay, if the plain updates before it have drawn; seeding in vain would cost it dear."""
        return self._randomness.seeded(self.seed + step) if self._randomness.draws else contextlib.nullcontext()

    def _capture(self, batch: Batch, step: int) -> _Captured:
        captured = _Captured(own_copy(batch), torch.zeros((), device=self._device), self._plain_loss(batch, step))

        def forward() -> None:
            captured.loss = self.task.training_loss(self.network, captured.batch)

        def update() -> None:
            with self.optimization.rate_on_device(captured.rate):
                self.optimization.backward(captured.loss)
                self.optimization.update_parameters()

        captured.forward = self._recorder.record(forward)
        captured.update = self._recorder.record(update)
        return captured

    @torch.no_grad()
    def _plain_loss(self, batch: Batch, step: int) -> Tensor:
        """Return the loss on a batch, without an effect on the network's running statistics."""
        kept = [(own, own.clone()) for own in self.network.buffers()]
        with self._randomness.seeded(self.seed + step), self._recorder.warming_up():
            loss = self.task.training_loss(self.network, batch)
        for own, before in kept:
            own.copy_(before)
        return loss
