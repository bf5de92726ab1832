"""How much of the batch reward each instance's temperature earned, by looking at the update itself.

A calibrator gives every instance a credit: what its temperature gained over the reference temperature, as the fall of
the probe loss in nats, times N so that credits average to their batch's reward. What their mean leaves of the batch
reward belongs to all instances alike; :class:`~rlkd_env.wrappers.CalibratedReward` adds it. To add a calibrator, write
a class here and register it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.methods.equal_gradients import scale_to
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.registry import Registry

Reference = float | Policy | None
"""What credits are relative to."""


class Calibrator(RunHook, ABC):
    """Credits the instances of an update; watches its run as a hook.

    Args:
        run: that makes the updates.
        reference: temperature that every instance's credit is relative to, or a rule that gives it; None takes the
            geometric mean of the run's range, which is the action 0 of :class:`~rlkd_env.wrappers.TemperatureAction`.

    Attributes:
        credit: ``(N,)`` of the latest update, on the run's device; None before the first.
        forwards_images: whether it forwards probe images, each of which must then be an instance.

    Raises:
        UsageError: if the reference is not positive and finite, or the run is none that the calibrator can look into.
    """

    forwards_images = True

    def __init__(self, run: DistillationRun, reference: Reference = None) -> None:
        bounds = run.temperature_range
        self.reference = reference if reference is not None else (bounds.minimum * bounds.maximum) ** 0.5
        if not callable(self.reference) and not 0 < self.reference < float("inf"):
            raise UsageError(f"the reference temperature must be positive and finite, not {self.reference:g}")
        if self.forwards_images and not run.task.follows_logits:
            raise UsageError(
                "this calibrator looks at whole images: for region proposals there are uniform and return_decomposition"
            )
        if self.forwards_images and run.recipe.optimizer != "sgd":
            raise UsageError(
                f"this calibrator follows SGD's updates: with {run.recipe.optimizer} there are uniform and "
                "return_decomposition"
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
        """Gradient of every instance's loss by its logits, less the same at the reference temperature: ``(N, C)``.

        The terms that no temperature changes cancel, so only the others are computed. What the temperature itself adds
        to the gradient, where a rule reads it from the student's logits, is left out. Where all gradients have the same
        norm, the mean, both have that of the update: a credit is for a direction, not for what one instance does to the
        mean.
        """
        actual, reference = (
            _logit_gradient(run, temperature),
            _logit_gradient(run, self._reference_for(run, temperature)),
        )
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

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:  # noqa: ARG002
        """Credit nobody."""
        self.credit = torch.zeros_like(temperature.student)


class LastLayer(Calibrator):
    """First order in the classifier's weights alone; closed form, no backward through the network.

    credit_i = learning rate · ⟨Δ ∂L_i/∂z_i, G (h_i, 1)⟩, with G the gradient of the probe loss by the classifier's
    weight and bias, h_i the classifier's input and Δ the difference to the reference temperature.

    Where the reward forwards all probe images after every update, G comes from all of them at every update too. Else
    that would cost more than the update itself: every fourth update then forwards N/4 of them, in turn, and G is the
    moving average of what they give.

    Raises:
        UsageError: if the student has no linear layer that gives its logits.
    """

    SHARE = 1 / 4
    """Probe images that are forwarded at a time, over the batch size."""
    INTERVAL = 4
    """Updates from one time to the next."""
    DECAY = 0.9
    """Of the moving average: the latest ten times count."""

    def __init__(self, run: DistillationRun, reference: Reference = None) -> None:
        super().__init__(run, reference)
        self._student: nn.Module | None = None
        self._inputs: dict[bool, Tensor] = {}
        self._gradient: Tensor | None = None
        self._next_step = -1

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute the credit."""
        if run.student is not self._student:
            self._watch_classifier(run)
        batch_inputs = self._inputs[True]
        if run.step_count != self._next_step:
            self._gradient = None  # of another run, or from before updates that were not watched
        if run.reward.measures_probe:
            gradient = self._classifier_gradient(run, torch.arange(len(run.probe), device=run.device))
        elif self._gradient is None or run.step_count % self.INTERVAL == 0:
            latest = self._classifier_gradient(run, self._share_of_probe(run))
            gradient = latest if self._gradient is None else torch.lerp(latest, self._gradient, self.DECAY)
        else:
            gradient = self._gradient
        self._gradient, self._next_step = gradient, run.step_count + 1
        direction = batch_inputs @ gradient[:, :-1].T + gradient[:, -1]
        change = self.logit_gradient_change(run, temperature)
        self.credit = run.learning_rate * (change * direction).sum(dim=-1)

    def _share_of_probe(self, run: DistillationRun) -> Tensor:
        """Return the positions of the probe images whose turn it is, ``(m,)``."""
        everything = len(run.probe)
        count = min(everything, max(1, int(self.SHARE * run.batch_size)))
        turn = run.step_count // self.INTERVAL
        return (torch.arange(count, device=run.device) + turn * count) % everything

    @torch.no_grad()
    def _classifier_gradient(self, run: DistillationRun, positions: Tensor) -> Tensor:
        """Gradient of the loss on some probe images by the classifier's weight and bias: ``(C, width + 1)``."""
        engine = run.task.engine
        labels = run.probe.labels[positions]
        run.student.eval()
        logits = engine.forward(run.student, engine.images(run.probe.images[positions]))
        run.student.train()
        error = (logits.softmax(dim=-1) - F.one_hot(labels, logits.shape[-1])) / len(labels)
        return torch.cat([error.T @ self._inputs[False], error.sum(dim=0)[:, None]], dim=1)

    def _watch_classifier(self, run: DistillationRun) -> None:
        """Keep the classifier's latest input in training and in evaluation, from forwards that happen anyway."""
        linear = [module for module in run.student.modules() if isinstance(module, nn.Linear)]
        if not linear or linear[-1].out_features != run.splits.num_classes:
            raise UsageError("the calibrator last_layer needs a student that ends in a linear layer")

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs[module.training] = inputs[0].detach().float()

        linear[-1].register_forward_pre_hook(keep)
        self._student = run.student
        with torch.no_grad():
            run.update.forward_again(dict(run.student.named_parameters()))  # the waiting batch came before the watch

    def state_dict(self) -> dict[str, Any]:
        """Return the moving average."""
        return {"gradient": self._gradient, "next_step": self._next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._gradient, self._next_step = state["gradient"], state["next_step"]


class Gradient(Calibrator):
    """First order in all weights: one probe gradient G, one forward-mode pass for all instances' J_i G.

    credit_i = learning rate · ⟨Δ ∂L_i/∂z_i, J_i G⟩, with J_i the Jacobian of the instance's logits by the weights.
    """

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute the credit."""
        parameters = {name: value.detach() for name, value in run.student.named_parameters()}
        gradient = torch.func.grad(lambda weights: probe_loss(run, weights))(parameters)
        direction = jvp(run.update.forward_again, (parameters,), (gradient,))[1]
        change = self.logit_gradient_change(run, temperature)
        self.credit = run.learning_rate * (change * direction).sum(dim=-1)


class Counterfactual(Calibrator):
    """The truth: for every instance the update is made with the reference temperature in its place, and compared.

    N students are evaluated on the probe images in float64, as one batch of students. The N updates follow from the
    actual one, because SGD is linear in the gradient; running statistics of batch norms are left as they are. For tests
    and small students: memory grows by N students.
    """

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute by how much every instance's gradient would change, in all weights."""
        self._step_size = run.learning_rate / run.batch_size
        parameters = {name: value.detach() for name, value in run.student.named_parameters()}
        change = self.logit_gradient_change(run, temperature)
        pull_back = vjp(run.update.forward_again, parameters)[1]
        rows = torch.diag_embed(change.T).permute(1, 2, 0)  # row i holds the change of instance i alone
        (self._gradient_change,) = vmap(pull_back)(rows)

    def on_step(self, run: DistillationRun, result: StepResult) -> None:  # noqa: ARG002
        """Compare the update that was made with those that were not."""
        actual = {name: value.detach().double() for name, value in run.student.named_parameters()}
        others = {
            name: value + self._step_size * self._gradient_change[name].double() for name, value in actual.items()
        }
        with torch.no_grad():
            losses = vmap(lambda weights: probe_loss(run, weights))(others)
            self.credit = run.batch_size * (losses - probe_loss(run, actual)).to(run.outputs.student_logits.dtype)


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


CALIBRATORS: Registry[type[Calibrator]] = Registry("calibrator")
CALIBRATORS.register("uniform")(Uniform)
CALIBRATORS.register("last_layer")(LastLayer)
CALIBRATORS.register("gradient")(Gradient)
CALIBRATORS.register("counterfactual")(Counterfactual)
