"""What calibrators that look at updates have in common.

A calibrator gives every instance a credit: what its temperature gained over the reference temperature, as the fall of
the probe loss in nats, times N, so that credits average to their batch's reward. What their mean leaves of the batch
reward belongs to all instances alike; :class:`~rlkd_env.wrappers.CalibratedReward` adds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.methods.equal_gradients import scale_to
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun

Reference = float | Policy | None
"""What credits are relative to."""


class Calibrator(RunHook, ABC):
    """Credits the instances of an update; watches its run as a hook.

    Subclasses compute :attr:`credit` in :meth:`before_update` or ``on_step``, and declare what they need.

    Args:
        reference: the temperature that every instance's credit is relative to, or a rule that gives it. None takes the
            geometric mean of the run's range, which is the action 0 of :class:`~rlkd_env.wrappers.TemperatureAction`.

    Attributes:
        credit: ``(N,)`` of the latest update, on the run's device; None before the first.
        forwards_images: whether it forwards images, each of which must be one instance, and all in one process.
        optimizers: the optimizers whose updates it can follow; None for any.
        takes_several_runs: whether it works where every run has a batch reward of its own.

    Raises:
        UsageError: if the reference is not positive and finite, or the calibrator cannot look into the run.
    """

    forwards_images = True
    optimizers: tuple[str, ...] | None = ("sgd",)
    takes_several_runs = False

    def __init__(self, run: DistillationRun, reference: Reference = None) -> None:
        bounds = run.temperature_range
        self.reference = reference if reference is not None else (bounds.minimum * bounds.maximum) ** 0.5
        if not callable(self.reference) and not 0 < self.reference < float("inf"):
            raise UsageError(f"the reference temperature must be positive and finite, not {self.reference:g}")
        if self.forwards_images and not run.task.follows_logits:
            raise UsageError(
                "this calibrator looks at whole images: for region proposals there are uniform and return_decomposition"
            )
        if self.forwards_images and run.two_views:
            raise UsageError(
                "this calibrator looks at one view of an image, and the method compares two: there are uniform and "
                "return_decomposition"
            )
        if self.optimizers is not None and run.recipe.optimizer not in self.optimizers:
            raise UsageError(
                f"this calibrator follows the updates of {', '.join(self.optimizers)}: with {run.recipe.optimizer} "
                "there are uniform and return_decomposition"
            )
        self.credit: Tensor | None = None

    @abstractmethod
    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Look at the student that the update starts from."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next credits depend on besides the run."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""

    def logit_gradient_change(self, run: DistillationRun, temperature: Temperature) -> Tensor:
        """Return how every instance's gradient by its logits differs from that at the reference, ``(N, C)``.

        Only the terms that depend on temperatures are computed, as the others cancel. If a rule reads the temperature
        from the student's logits, what that adds to the gradient is left out. If the run gives all gradients the same
        norm, the batch's mean, both gradients have the norm of the update, so that a credit is for a direction and not
        for what one instance does to the mean.
        """
        actual = _logit_gradient(run, temperature)
        reference = _logit_gradient(run, self._reference_for(run, temperature))
        if run.method.equal_gradients:
            target = run.method.mean_gradient_norm(actual.norm(dim=-1))
            actual, reference = _scaled_to(target, actual), _scaled_to(target, reference)
        return actual - reference

    def _reference_for(self, run: DistillationRun, temperature: Temperature) -> Temperature:
        if callable(self.reference):
            with torch.no_grad():
                return self.reference(run.outputs)
        return Temperature.shared(torch.full_like(temperature.student, self.reference))


def _scaled_to(target: Tensor, gradient: Tensor) -> Tensor:
    return scale_to(target, gradient.norm(dim=-1)).unsqueeze(-1) * gradient


def _logit_gradient(run: DistillationRun, temperature: Temperature) -> Tensor:
    logits = run.outputs.student_logits.detach().requires_grad_(True)
    losses = run.method.logit_losses(run.outputs.with_student_logits(logits), temperature)
    if not losses:
        return torch.zeros_like(logits)
    return torch.autograd.grad(torch.stack(list(losses.values())).sum(), logits)[0]


class Uniform(Calibrator):
    """No credit: every instance earns the batch reward. The control."""

    forwards_images = False
    optimizers = None
    takes_several_runs = True

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:  # noqa: ARG002
        """Credit nobody."""
        self.credit = torch.zeros_like(temperature.student)


def probe_loss(run: DistillationRun, parameters: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the run's student with these weights on the probe images, in the weights' precision."""
    dtype = next(iter(parameters.values())).dtype
    buffers = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in run.student.named_buffers()
    }
    run.student.eval()
    logits = functional_call(run.student, {**parameters, **buffers}, (run.probe.images.to(dtype),))
    run.student.train()
    return F.cross_entropy(logits, run.probe.labels)
