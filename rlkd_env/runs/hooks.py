"""What a run hands out: the result of a step, the hooks that watch it, and the policies that it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature

if TYPE_CHECKING:
    from rlkd_env.runs.run import DistillationRun


@dataclass(frozen=True)
class StepResult:
    """What one update did. Tensors stay on the run's device; nothing here has been synchronised.

    Attributes:
        reward: of the update, no dimensions; the run's divergence penalty where the update diverged.
        state: ``(N, d)`` of the next batch.
        finished: whether the schedule is over.
        diverged: true where the loss or the student's logits are no longer finite; no dimensions.
        metrics: means over the batch by name: ``loss`` and the weighted ``loss_...`` parts; with an explorer also
            ``mixed_share``, the share of the instances that are mixed.
        outputs: of the batch that the update was made on.
        temperature: that the update was made with.
    """

    reward: Tensor
    state: Tensor
    finished: bool
    diverged: Tensor
    metrics: dict[str, Tensor]
    outputs: InstanceOutputs
    temperature: Temperature

    @property
    def done(self) -> bool:
        """Whether the run has ended, finished or diverged; waits for the device."""
        return self.finished or bool(self.diverged)


class RunHook:
    """Something that watches a run; override what is needed. Hooks must not change the run."""

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Look at the student and the waiting batch before an update with these temperatures."""

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        """Follow one update."""

    def on_epoch_end(self, run: DistillationRun) -> None:
        """Follow the last update of an epoch, after :meth:`on_step`."""
