"""First-order credits: what an update does to the probe loss, according to the loss's gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp

from rlkd_env.credit.base import Calibrator, Reference, probe_loss
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun


class LastLayer(Calibrator):
    """First order in the classifier's weights alone: a closed form, without a backward pass through the network.

    credit_i = learning rate · ⟨Δ ∂L_i/∂z_i, G (h_i, 1)⟩, where G is the gradient of the probe loss by the classifier's
    weight and bias, h_i the classifier's input and Δ the difference from the reference temperature.

    If the reward evaluates all probe images after every update, G is computed from all of them at every update, too.
    Otherwise that would cost more than the update itself, so every fourth update forwards the next N/4 of them, and G
    is a moving average.
    """

    SHARE = 1 / 4  # of the batch size: the number of probe images that are forwarded at a time
    INTERVAL = 4  # updates from one time to the next
    DECAY = 0.9  # weight of the past in the moving average, which so covers about ten gradients

    def __init__(self, run: DistillationRun, reference: Reference = None) -> None:
        super().__init__(run, reference)
        self._student: nn.Module | None = None
        self._inputs: dict[bool, Tensor] = {}
        self._gradient: Tensor | None = None
        self._next_step = -1

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the student and what its classifier has seen: a copy watches the student of its own run."""
        return {**self.__dict__, "_student": None, "_inputs": {}}

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute the credit."""
        if run.student is not self._student:
            self._watch_classifier(run)
        batch_inputs = self._inputs[True]
        if run.step_count != self._next_step:
            self._gradient = None  # of another run, or from before updates that were not watched
        if run.measures_probe:
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
        """Keep the classifier's latest input in training and in evaluation, from forward passes that happen anyway."""
        linear = [module for module in run.student.modules() if isinstance(module, nn.Linear)]
        if not linear or linear[-1].out_features != run.splits.num_classes:
            raise UsageError("the calibrator last_layer needs a student that ends in a linear layer")
        if run.method.uses_two_heads:
            raise UsageError(
                "the calibrator last_layer follows one classifier, but the student has two heads: choose "
                "return_decomposition or gradient"
            )
        if not linear[-1].weight.requires_grad:
            raise UsageError(
                "the calibrator last_layer follows the student's classifier, which the method does not train: choose "
                "return_decomposition or gradient"
            )

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs[module.training] = inputs[0].detach().float()

        keep.is_replayable = True  # type: ignore[attr-defined] # what it keeps is what a captured update overwrites
        linear[-1].register_forward_pre_hook(keep)
        self._student = run.student
        with torch.no_grad(), run.update.same_draws():
            run.update.forward_again(dict(run.student.named_parameters()))  # the waiting batch came before the watch

    def state_dict(self) -> dict[str, Any]:
        """Return the moving average."""
        return {"gradient": self._gradient, "next_step": self._next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._gradient, self._next_step = state["gradient"], state["next_step"]


class Gradient(Calibrator):
    """First order in all weights: one gradient G of the probe loss, and one forward-mode pass for all J_i G.

    credit_i = learning rate · ⟨Δ ∂L_i/∂z_i, J_i G⟩, where J_i is the Jacobian of the instance's logits by the weights.
    """

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute the credit."""
        parameters = {name: value.detach() for name, value in run.student.named_parameters()}
        gradient = torch.func.grad(lambda weights: probe_loss(run, weights))(parameters)
        with run.update.same_draws():
            direction = jvp(run.update.forward_again, (parameters,), (gradient,))[1]
        change = self.logit_gradient_change(run, temperature)
        self.credit = run.learning_rate * (change * direction).sum(dim=-1)
