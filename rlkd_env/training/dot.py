"""DOT: SGD with a momentum for the task's gradients and one for those of distillation (Zhao et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class DOT(Optimizer):
    """SGD whose momentum is m - δ for the task's own loss and m + δ for the distillation terms.

    A step takes two gradients: that of the distillation terms, which :meth:`keep_distillation_gradients` puts aside,
    and that of the task, which then lies in the parameters. What gets only one of them has the momentum m. The weight
    decay counts as the task's, or, where there is no such gradient, as that of distillation; there the authors' code
    leaves it out of the first step.

    Args:
        parameters: What is trained.
        learning_rate: The learning rate.
        momentum: The momentum m.
        delta: The difference δ; the published values are 0.075 for CIFAR-100 and 0.09 for ImageNet.
        weight_decay: The L2 penalty.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": learning_rate, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)
        self._of_distillation: dict[int, Tensor] = {}

    def keep_distillation_gradients(self) -> None:
        """Put the gradients in the parameters aside as those of the distillation terms."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._of_distillation = {id(own): own.grad for own in parameters if own.grad is not None}
        for parameter in parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Make a step along both gradients; there is no closure to call."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update(parameter, self._of_distillation.pop(id(parameter), None), group)

    def _update(self, parameter: nn.Parameter, of_distillation: Tensor | None, group: dict[str, Any]) -> None:
        gradients = {"task": parameter.grad, "distillation": of_distillation}
        given = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        delta = group["delta"] if len(given) == 2 else 0.0
        momenta = {"task": group["momentum"] - delta, "distillation": group["momentum"] + delta}
        steps = []
        for number, (name, gradient) in enumerate(given.items()):
            if number == 0 and group["weight_decay"]:
                gradient = gradient + group["weight_decay"] * parameter
            buffer = self.state[parameter].setdefault(f"{name}_momentum", torch.zeros_like(parameter))
            steps.append(buffer.mul_(momenta[name]).add_(gradient))
        for step in steps:
            parameter.sub_(group["lr"] * step)
