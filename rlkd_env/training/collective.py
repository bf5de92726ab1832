"""What the processes of a run do together: share batches, average, gather and agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from rlkd_env.data import ImageSet, Share
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.tasks import Evaluation


class Collective:
    """The processes of a run, in the form of a single process that has nobody to talk to; W is their number."""

    rank = 0
    count = 1

    @property
    def share(self) -> Share:
        """This process's share of every batch."""
        return Share(self.rank, self.count)

    def draw_number(self, step: int) -> int:
        """Return what seeds this process's random draws of a step; no process and no step has the same one."""
        return step * self.count + self.rank

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return what to call in place of a module so that its gradients are those of the whole batch."""
        return module

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of a few parameters over the processes."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, without gradient."""
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Return the shares ``(n, ...)`` of all processes as ``(W · n, ...)``, without gradient."""
        return values

    def whole(self, outputs: InstanceOutputs) -> InstanceOutputs:
        """Return the outputs of the whole batch."""
        return outputs

    def same(self, values: Tensor) -> Tensor:
        """Return the first process's values, which the others have computed alike except for rounding."""
        return values

    def to_first(self, state: Tensor) -> Tensor:
        """Return the whole batch's state ``(N, d)`` on the first process; the others keep their share."""
        return state

    def agree(self, diverged: Tensor, metrics: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return whether any process has diverged, and the metrics of the whole batch."""
        return diverged, metrics

    def evaluate(self, evaluate: Callable[[ImageSet], Evaluation], images: ImageSet) -> Evaluation:
        """Evaluate a network on a set of images, of which every process takes a part."""
        return evaluate(images)
