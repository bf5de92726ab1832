"""What several processes that share a run do together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlkd_env.data import ImageSet
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.models.taps.features import Taps, set_taps
from rlkd_env.runs.distributed.batch_norm import share_norms
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.tasks import Evaluation
from rlkd_env.training.collective import Collective


class ProcessCollective(Collective):
    """The processes that share a run; ``gathers_states`` lets the first process, which chooses, have all states."""

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self.rank = processes.rank
        self.count = processes.count
        self.gathers_states = True
        self._processes = processes
        self._device = device
        self._parts: dict[int, tuple[ImageSet, ImageSet]] = {}

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return what averages the module's gradients; its batch norms see the whole batch from now on."""
        share_norms(module, self._device)
        return _averaging(module)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of a few parameters over the processes."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.mean(parameter.grad)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, without gradient."""
        return self._processes.mean(values)

    def gather(self, values: Tensor) -> Tensor:
        """Return the shares ``(n, ...)`` of all processes as ``(W · n, ...)``, without gradient."""
        return self._processes.gather(values)

    def whole(self, outputs: InstanceOutputs) -> InstanceOutputs:
        """Return the outputs of the whole batch, without gradients and features."""
        return outputs.map(self.gather)

    def same(self, values: Tensor) -> Tensor:
        """Return the first process's values, which the others have computed alike except for rounding."""
        self._processes.take_from_first(values)
        return values

    def to_first(self, state: Tensor) -> Tensor:
        """Return the whole batch's state ``(N, d)`` on the first process if states are gathered, else the share."""
        whole = self._processes.gather_to_first(state) if self.gathers_states else None
        return state if whole is None else whole.to(state.device)

    def agree(self, diverged: Tensor, metrics: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return whether any process has diverged, and the metrics of the whole batch."""
        means = self.mean(torch.stack([diverged.float(), *(value.float() for value in metrics.values())]))
        return means[0] > 0, dict(zip(metrics, means[1:], strict=True))

    def evaluate(self, evaluate: Callable[[ImageSet], Evaluation], images: ImageSet) -> Evaluation:
        """Evaluate a network on this process's part of a set and return the figures of the whole set."""
        part, figures = self._part_of(images), torch.zeros(3, device=self._device)
        if len(part):
            local = evaluate(part)
            figures = torch.stack([local.accuracy, local.loss, local.confidence]) * (len(part) / len(images))
        return Evaluation(*self._processes.total(figures))

    def _part_of(self, images: ImageSet) -> ImageSet:
        if id(images) not in self._parts:
            part = images.subset(torch.arange(len(images)).tensor_split(self.count)[self.rank])
            self._parts[id(images)] = (images, part)  # as long as the set is kept here, no other has its id
        return self._parts[id(images)][1]


def _averaging(module: nn.Module) -> nn.Module:
    """Return what averages the module's gradients over the processes, or the module itself if it has none."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    with warnings.catch_warnings():  # of newer names for this argument, which older versions do not know
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(module, broadcast_buffers=False)
    taps = getattr(module, "taps", None)
    if not isinstance(taps, Taps):
        return parallel
    return set_taps(
        parallel,
        Taps(
            tuple(f"module.{name}" for name in taps.stages),
            tuple(f"module.{name}" for name in taps.preactivations),
            f"module.{taps.classifier}",
        ),
    )
