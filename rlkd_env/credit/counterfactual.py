"""The true credits: the updates that were not made are made, too, and compared."""

from __future__ import annotations

import torch
from torch.func import vjp, vmap

from rlkd_env.credit.base import Calibrator, probe_loss
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.run import DistillationRun


class Counterfactual(Calibrator):
    """The true credit: the update is repeated for every instance, with the reference temperature for it alone.

    N students are evaluated on the probe images in float64, as one batch of students. Their updates follow from the
    actual one, because SGD is linear in the gradient; running statistics of batch norms are left as they are. This is
    for tests and small students, as it takes the memory of N students.
    """

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        """Compute by how much every instance's gradient would change, in all weights."""
        self._step_size = run.learning_rate / run.batch_size
        parameters = {name: value.detach() for name, value in run.student.named_parameters()}
        change = self.logit_gradient_change(run, temperature)
        with run.update.same_draws():
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
