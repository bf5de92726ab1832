"""An update that is captured as CUDA graphs: two replays in place of a thousand launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data import Batch
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models.graphs import Recorder
from rlkd_env.training.captured.by_kind import WARM_UP, RecordedByKind, fill, own_copy
from rlkd_env.training.update import Update

STEPS_TO_CAPTURE = WARM_UP + 2
"""Steps of a run until all that comes is replayed: the next one captures, and one more is the first to be replayed."""
_TOLERANCE = 0.05
"""Share of the logits' size that a replayed forward may differ from a plain one by; a wrong one is far off."""


@dataclass
class _Captured:
    """The memory that recorded work reads and writes, and the two parts of the work: forward, and the rest.

    Inputs are the batch, the place in the schedule, the learning rate and the temperatures, whose factor is always
    there. ``found`` is what the forward computes, and ``derived`` the values that follow from it and were computed too.
    ``expected`` are the logits of a plain forward, which the first replay is compared with.
    """

    batch: Batch
    place: Tensor
    rate: Tensor
    temperature: Temperature
    found: InstanceOutputs = field(init=False)
    derived: dict[str, Any] = field(init=False)
    state: Tensor = field(init=False)
    is_finite: Tensor = field(init=False)
    metrics: dict[str, Tensor] = field(init=False)
    expected: Tensor | None = field(init=False, default=None)
    forward: Callable[[], None] = field(init=False)
    update: Callable[[], None] = field(init=False)

    @classmethod
    def of(cls, batch: Batch, num_instances: int) -> _Captured:
        """Return memory for batches like this one, which it holds a copy of."""
        device = batch.labels.device
        teacher, student, factor = torch.ones(3, num_instances, device=device).unbind()
        place, rate = torch.zeros(2, device=device), torch.zeros((), device=device)
        return cls(own_copy(batch), place, rate, Temperature(teacher, student, factor))

    def take_temperature(self, temperature: Temperature) -> None:
        """Copy temperatures into the memory."""
        own, factor = self.temperature, temperature.factor
        own.teacher.copy_(temperature.teacher)
        own.student.copy_(temperature.student)
        if own.factor is not None:
            own.factor.copy_(temperature.student * temperature.teacher if factor is None else factor)

    def waiting(self, progress: float, epoch: float, step: int) -> InstanceOutputs:
        """Return what the latest forward has found, in the memory that the next one overwrites."""
        outputs = replace(self.found, progress=progress, epoch=epoch, step=step)
        vars(outputs).update(self.derived)
        return outputs


class CapturedUpdate(Update):
    """An update whose forward, and whose rest, are captured once and then replayed.

    The first updates are made operation by operation, and so warm everything up; nothing has to be put back. Then both
    parts are captured for a batch like the one at hand, which computes nothing, and replayed from there on. The images,
    the temperatures, the place in the schedule and the learning rate are inputs. What cannot be captured is computed as
    :class:`Update` does, and :attr:`why_plain` says why.

    What waits for its temperatures lies in memory that the next forward overwrites; :meth:`kept_outputs` does not.
    """

    _current: _Captured | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._recorder = Recorder(self._device)
        self._captured: RecordedByKind[_Captured] = RecordedByKind(self.student, self._why_not())

    @property
    def why_plain(self) -> str | None:
        """Why updates are computed operation by operation; None if they are captured, or will be after a few."""
        return self._captured.reason

    def _why_not(self) -> str | None:
        if not self.task.follows_logits:
            return "a detector's regions differ in number from image to image"
        if self._collective.count > 1:
            return "several processes share the run"
        if self.method.is_stochastic:
            return f"the method {type(self.method).__name__} draws random numbers"
        if self.method.waits_for_device:
            return f"the method {type(self.method).__name__} waits for the device"
        if self.policy is not None and any(weight.requires_grad for weight in self.policy.parameters()):
            return "a policy is trained along with the student"
        if self.optimization.further is not None:
            return f"the method {type(self.method).__name__} has an optimiser of its own"
        return None

    def forward(self, batch: Batch, step: int) -> InstanceOutputs:
        """Forward N images, or the batches of K runs one after another; they then wait for their temperatures."""
        batch = self.with_known_logits(batch)
        self._current = self._captured.of(batch, lambda: self._capture(batch, step))
        if self._current is None:
            self._captured.plain_updates += 1
            with self._recorder.warming_up():
                return super().forward(batch, step)
        outputs = self._replay_forward(self._current, batch, step)
        expected, self._current.expected = self._current.expected, None
        if expected is not None and self._differs(outputs.student_logits, expected):
            self._captured.give_up("replayed, the student computes something else than before")
            self._forward_again_plainly()
        return self.outputs

    @torch.no_grad()
    def _plain_logits(self, batch: Batch, step: int) -> Tensor:
        """Return the student's logits in training ``(N, C)``, without an effect on its running statistics."""
        kept = [(buffer, buffer.clone()) for buffer in self.student.buffers()]
        with self._randomness.seeded(self.seed + step), self._recorder.warming_up():
            logits = self._compute(batch, 0.0, 0.0).student_logits
        for buffer, before in kept:
            buffer.copy_(before)
        return logits

    @staticmethod
    def _differs(logits: Tensor, expected: Tensor) -> bool:
        """Return whether logits are not nearly the expected ones; waits for the device."""
        return bool((logits.detach() - expected).abs().max() > _TOLERANCE * expected.abs().max())

    def _replay_forward(self, captured: _Captured, batch: Batch, step: int) -> InstanceOutputs:
        fill(captured.batch, batch)
        progress, epoch = step / self._total_steps, step / self._steps_per_epoch
        captured.place[0].fill_(progress)
        captured.place[1].fill_(epoch)
        with self._seeded(step):
            captured.forward()
        self.batch, self.state = captured.batch, captured.state.clone()
        self.outputs = captured.waiting(progress, epoch, step)
        return self.outputs

    def _seeded(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Seed a replay, if the plain updates before it have drawn; seeding in vain would cost it dear."""
        return self._randomness.seeded(self.seed + step) if self._randomness.draws else contextlib.nullcontext()

    def apply(self, temperature: Temperature) -> dict[str, Tensor]:
        """Update the student with temperatures ``(N,)``; return mean ``loss`` and its weighted parts ``loss_...``.

        Raises:
            ValueError: if the temperatures carry gradients, but :meth:`stay_plain` was not called before the forward.
        """
        captured = self._current
        if captured is None:
            with self._recorder.warming_up():
                return super().apply(temperature)
        if temperature.teacher.requires_grad or temperature.student.requires_grad:
            raise ValueError("temperatures with gradients come from a policy: give it to advance()")
        captured.take_temperature(temperature)
        captured.rate.fill_(self.optimization.learning_rate)
        with self._seeded(self.outputs.step):
            captured.update()
        self.optimization.follow_schedule()
        return dict(zip(captured.metrics, torch.stack(list(captured.metrics.values())).unbind(), strict=True))

    def is_finite(self) -> Tensor:
        """Return whether all of the student's logits on the waiting batch are finite."""
        return super().is_finite() if self._current is None else self._current.is_finite

    def kept_outputs(self) -> InstanceOutputs:
        """Return what the networks say about the waiting batch, to be read after the update too; without features."""
        return self.outputs if self._current is None else self.outputs.map(lambda values: values.detach().clone())

    def stay_plain(self, reason: str) -> None:
        """Compute operation by operation from now on, and forward the waiting batch again in that way."""
        self._captured.reason = reason
        self._forward_again_plainly()

    def _forward_again_plainly(self) -> None:
        if self._current is not None:
            with self.same_statistics():
                self.forward(own_copy(self._current.batch), self.outputs.step)

    def _capture(self, batch: Batch, step: int) -> _Captured:
        """Record the work on a batch."""
        captured = _Captured.of(batch, len(self.outputs.labels))
        captured.expected = self._plain_logits(batch, step)

        def forward() -> None:
            found = self._compute(captured.batch, captured.place[0], captured.place[1])
            captured.state = self._observe(found)
            captured.is_finite = self._is_finite(found)
            captured.found, names = found, {entry.name for entry in fields(found)}
            captured.derived = {name: value for name, value in vars(found).items() if name not in names}

        def update() -> None:
            with self.optimization.rate_on_device(captured.rate):
                captured.metrics = self._minimise(captured.found, captured.temperature)

        captured.forward = self._recorder.record(forward)
        captured.update = self._recorder.record(update)
        return captured
