"""What may choose a run's batches in the place of a shuffled pass over the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rlkd_env.data import Batch, BatchStream
from rlkd_env.instances.outputs import InstanceOutputs

if TYPE_CHECKING:
    from rlkd_env.runs.run import DistillationRun


class Sampler(ABC):
    """Chooses every batch's images. Its choices follow from the stream's seed, the step and its own state alone."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything, as at the start of a run."""

    def prepare(self, run: DistillationRun) -> None:  # noqa: B027 (override what is needed)
        """Look at a run whose next batch is about to be drawn, without changing it."""

    @abstractmethod
    def batch(self, stream: BatchStream, step: int) -> Batch:
        """Return the batch of a step.

        Args:
            stream: hands out the training images, and the batches of a shuffled pass.
            step: counted from 0 over all epochs.
        """

    def observe(self, outputs: InstanceOutputs) -> None:  # noqa: B027
        """Take note of a batch that was forwarded; does not wait for the device."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that later batches depend on, independent of this object from now on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
