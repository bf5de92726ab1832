"""The update of a network along the gradient of its own loss, without a teacher: how teachers are trained."""

from __future__ import annotations

from torch import Tensor, nn

from rlkd_env.data import Batch
from rlkd_env.tasks import Task
from rlkd_env.training.update import Optimization
from rlkd_env.utils.randomness import StepRandomness


class OwnLossUpdate:
    """Updates a network, operation by operation.

    Args:
        task: what the loss is of.
        network: the network, which stays in its mode.
        optimization: its optimiser and schedule.
        seed: together with the step the seed of what the network draws.
    """

    def __init__(self, task: Task, network: nn.Module, optimization: Optimization, seed: int) -> None:
        self.task, self.network, self.optimization, self.seed = task, network, optimization, seed
        self._device = next(network.parameters()).device
        self._randomness = StepRandomness(self._device, looks_on=task.engine.captured)

    @property
    def why_plain(self) -> str | None:
        """Why updates are computed operation by operation; None if they are recorded and replayed."""
        return "the device has no CUDA graphs, or they are switched off"

    def __call__(self, batch: Batch, step: int) -> Tensor:
        """Make an update, and return the loss before it, without dimensions and gradient."""
        with self._randomness.seeded(self.seed + step):
            loss = self.task.training_loss(self.network, batch)
        self.optimization.backward(loss)
        self.optimization.step()
        return loss.detach()
