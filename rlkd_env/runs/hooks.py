"""What a run hands out: the result of a step, and the hooks that watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature

RunT = TypeVar("RunT", contravariant=True)
"""The kind of run that a hook can watch."""
WatchedT = TypeVar("WatchedT")
"""The kind of run that is watched, which is the class itself that derives from :class:`Watched`."""


@dataclass(frozen=True)
class StepResult:
    """What one update did. Tensors stay on the run's device; nothing here has been synchronised.

    Attributes:
        reward: the reward of the update, no dimensions; the run's divergence penalty if the update diverged.
        state: ``(N, d)``, the state of the next batch.
        finished: whether the schedule is over.
        diverged: whether the loss, the student's logits or the reward are no longer finite; no dimensions.
        metrics: figures by name: the batch's mean ``loss`` and weighted ``loss_...`` parts, what the run's sampler
            reports, and ``probe_loss`` and ``probe_accuracy`` where the reward has measured them.
        outputs: the outputs of the batch that the update was made on.
        temperature: the temperatures that the update was made with.
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
        """Whether the run, or every one of several, has finished or diverged; waits for the device."""
        return self.finished or bool(self.diverged.all())


class RunHook(Generic[RunT]):
    """Something that watches a run; override what is needed. Hooks must not change the run.

    The type of the run is a parameter, so a hook can ask for anything that the run it watches has, and this module
    needs to know no run.
    """

    def before_update(self, run: RunT, temperature: Temperature) -> None:
        """Look at the student and the waiting batch before an update with these temperatures."""

    def on_step(self, run: RunT, result: StepResult) -> None:
        """Follow one update."""

    def on_epoch_end(self, run: RunT) -> None:
        """Follow the last update of an epoch, after :meth:`on_step`."""


class Watched(Generic[WatchedT]):
    """A run, or several in lock-step, that hooks watch."""

    _hooks: list[RunHook[WatchedT]]

    @property
    def hooks(self) -> tuple[RunHook[WatchedT], ...]:
        """The hooks that watch the run, in the order in which they are called."""
        return tuple(self._hooks)

    def add_hook(self, hook: RunHook[WatchedT], first: bool = False) -> None:
        """Let a hook watch the run, after the hooks that watch it already or ahead of them all."""
        self._hooks.insert(0 if first else len(self._hooks), hook)

    def remove_hook(self, hook: RunHook[WatchedT]) -> None:
        """Stop a hook from watching the run."""
        self._hooks.remove(hook)
