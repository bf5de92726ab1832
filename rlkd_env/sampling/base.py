"""What may choose a run's batches in place of a shuffled pass over the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import Tensor, nn

from rlkd_env.data import Batch, BatchStream, ImageSet
from rlkd_env.instances.outputs import InstanceOutputs


class SampledRun(Protocol):
    """What a sampler may look at of the run whose batches it chooses."""

    @property
    def student(self) -> nn.Module:
        """The student as the updates so far have made it."""

    @property
    def train(self) -> ImageSet:
        """The training images."""

    @property
    def step_count(self) -> int:
        """Number of updates so far."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates in an epoch."""

    def same_everywhere(self, values: Tensor) -> Tensor:
        """Return values that several processes compute alike, except for rounding, as exactly the same in all."""


class Sampler(ABC):
    """Chooses the images of every batch; its choices follow from the stream's seed, the step and its own state alone.

    One that ``observes_batches`` wants to be shown them by :meth:`observe`.
    """

    observes_batches = False

    @abstractmethod
    def reset(self) -> None:
        """Forget everything, as at the start of a run."""

    def prepare(self, run: SampledRun) -> None:  # noqa: B027 (override what is needed)
        """Look at a run whose next batch is about to be drawn, without changing it."""

    def next_batch(self, stream: BatchStream, run: SampledRun) -> Batch:
        """Return the batch that a run makes its next update on."""
        self.prepare(run)
        return self.batch(stream, run.step_count)

    @abstractmethod
    def batch(self, stream: BatchStream, step: int) -> Batch:
        """Return the batch of a step, counted from 0 over all epochs, from what the stream hands out."""

    def observe(self, outputs: InstanceOutputs) -> None:  # noqa: B027
        """Take note of a whole batch that was forwarded; does not wait for the device."""

    def metrics(self, outputs: InstanceOutputs) -> dict[str, Tensor]:  # noqa: ARG002
        """Return what to report of an update on these outputs, by name; tensors without dimensions on the device."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that later batches depend on, independent of this object from now on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
