"""How a network is trained: optimiser, learning-rate schedule, epochs and batch size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

from rlkd_env.errors import UsageError, unknown_name

ScheduleName = Literal["cosine", "step", "constant"]
OptimizerName = Literal["sgd", "adam"]
USUAL_MILESTONES = (150 / 240, 180 / 240, 210 / 240)


@dataclass(frozen=True)
class Recipe:
    """An optimiser under a learning-rate schedule.

    Args:
        epochs: passes over the training set.
        batch_size: images an update, N.
        learning_rate: at the start.
        momentum: of SGD; Adam has its own.
        weight_decay: L2 penalty on all parameters.
        schedule: ``"cosine"`` to zero; ``"step"``: times 0.1 at the milestones; or ``"constant"``.
        optimizer: ``"sgd"`` or ``"adam"``.
        milestones: of the schedule ``"step"``, as shares of the run; those of the usual CIFAR-100 recipe are 150, 180
            and 210 of 240 epochs.

    Raises:
        UsageError: if a number is out of its range or the schedule is unknown.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: ScheduleName
    optimizer: OptimizerName = "sgd"
    milestones: tuple[float, ...] = USUAL_MILESTONES

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"the number of epochs must be at least 1, not {self.epochs}")
        if not self.learning_rate > 0:
            raise UsageError(f"the learning rate must be positive, not {self.learning_rate:g}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum must be in [0, 1), not {self.momentum:g}")
        if not self.weight_decay >= 0:
            raise UsageError(f"weight decay must not be negative, not {self.weight_decay:g}")
        if self.schedule not in get_args(ScheduleName):
            raise unknown_name("schedule", self.schedule, get_args(ScheduleName))
        if self.optimizer not in get_args(OptimizerName):
            raise unknown_name("optimizer", self.optimizer, get_args(OptimizerName))
        if not all(low < high for low, high in itertools.pairwise((0.0, *self.milestones, 1.0))):
            raise UsageError(f"the milestones must rise within 0 to 1, not {', '.join(map(str, self.milestones))}")

    def create_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimiser of a network and of what is trained along with it."""
        if self.optimizer == "adam":
            return Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)
        parameters = list(parameters)
        on_gpu = all(parameter.is_cuda for parameter in parameters)
        return SGD(
            parameters, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, fused=on_gpu or None
        )

    def create_schedule(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Return the schedule, stepped once an update."""
        if self.schedule == "cosine":
            return CosineAnnealingLR(optimizer, total_steps)
        if self.schedule == "step":
            return MultiStepLR(optimizer, [round(share * total_steps) for share in self.milestones])
        return LambdaLR(optimizer, lambda _: 1.0)


def chosen_fields(kind: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the settings that are fields of a dataclass, as its keyword arguments."""
    return {field.name: settings[field.name] for field in fields(kind) if field.name in settings}
