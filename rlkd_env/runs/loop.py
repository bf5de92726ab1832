"""The loop of a run: an update, the forward of the next batch, its reward, and so on to the end of the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.ingredients import Ingredients
from rlkd_env.runs.reward import Measurement, RewardMeter
from rlkd_env.sampling.base import SampledRun
from rlkd_env.tasks import Evaluation
from rlkd_env.training.collective import Collective
from rlkd_env.training.update import Update


@dataclass(frozen=True)
class UpdateResult:
    """What one update did, as in :class:`~rlkd_env.runs.hooks.StepResult`; with K stacked students all is ``(K,)``.

    The ``outputs`` are those of the batch that the update was made on.
    """

    reward: Tensor
    diverged: Tensor
    metrics: dict[str, Tensor]
    outputs: InstanceOutputs


class TrainingLoop:
    """Makes updates on one batch after another and measures what each has brought."""

    def __init__(
        self,
        ingredients: Ingredients,
        update: Update,
        next_batch: Callable[[SampledRun], Batch],
        reward: RewardMeter,
        evaluate: Callable[[ImageSet], Evaluation],
        collective: Collective | None = None,
    ) -> None:
        self.update = update
        self.train = ingredients.splits.train
        self.reward = reward
        self.total_steps = ingredients.total_steps
        self.steps_per_epoch = ingredients.steps_per_epoch
        self.step_count = 0
        self._next_batch = next_batch
        self._evaluate, self._probe, self._parts = evaluate, ingredients.probe, ingredients.probe_parts
        self._penalty = ingredients.divergence_penalty
        self._sampler = ingredients.sampler
        self._collective = collective or Collective()

    @property
    def student(self) -> nn.Module:
        """The student as the updates so far have made it."""
        return self.update.student

    @property
    def finished(self) -> bool:
        """Whether the schedule is over."""
        return self.step_count >= self.total_steps

    def same_everywhere(self, values: Tensor) -> Tensor:
        """Return values that several processes compute alike, except for rounding, as exactly the same in all."""
        return self._collective.same(values)

    def start(self) -> None:
        """Forward the first batch and take the first measurement."""
        if self._sampler is not None:
            self._sampler.reset()
        self._forward()
        self._show_sampler()
        self.reward.reset(self._measurement())

    def step(self, temperature: Temperature, is_rewarded: bool = True) -> UpdateResult:
        """Update the student with the temperatures of the waiting batch, and forward the next batch.

        A reward that is delayed counts from the first update after those that nobody is rewarded for.
        """
        self.reward.before_update(self._measurement(), is_rewarded)
        metrics = self.update.apply(temperature)
        # By now a device has an update to make, beside which these copies are free.
        outputs = self.update.kept_outputs()
        self.step_count += 1
        self._forward()
        self._show_sampler()
        reward = self.reward.after_update(self._measurement(), is_last=self.finished)
        diverged = ~(metrics["loss"].isfinite() & self.update.is_finite() & reward.isfinite())
        if self.finished or self.step_count % self.steps_per_epoch == 0:
            diverged |= ~self.update.has_sound_weights()
        if self._sampler is not None:
            metrics |= self._sampler.metrics(outputs)
        diverged, metrics = self._collective.agree(diverged, metrics)
        metrics |= self.reward.figures()
        return UpdateResult(torch.where(diverged, self._penalty, reward), diverged, metrics, outputs)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on besides its seed; the tensors are those in use."""
        return {
            "step_count": self.step_count,
            **self.update.state_dict(),
            "reward": self.reward.state_dict(),
            "sampler": None if self._sampler is None else self._sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`, bit for bit on a CPU; the state's tensors may stay in use."""
        if (state.get("sampler") is None) != (self._sampler is None):
            raise UsageError(
                "a run's state with an exploration or curriculum needs a run with one, and a state without needs none"
            )
        self.update.load_state_dict(state)
        self.step_count = state["step_count"]
        if self._sampler is not None:
            self._sampler.load_state_dict(state["sampler"])  # it has seen the waiting batch already
        with self.update.same_statistics():
            self._forward()
        self.reward.reset(self._measurement())
        self.reward.load_state_dict(state["reward"])

    def _forward(self) -> None:
        self.update.forward(self._next_batch(self), self.step_count)

    def _show_sampler(self) -> None:
        if self._sampler is not None and self._sampler.observes_batches:
            self._sampler.observe(self._collective.whole(self.update.outputs))

    def _measurement(self) -> Measurement:
        return Measurement(self.update.outputs, self._evaluate, self._probe, self._parts, self._collective.mean)


ResultT = TypeVar("ResultT", bound=StepResult)


class Steppable(Protocol):
    """A run, or several in lock-step, as far as a policy is concerned."""

    @property
    def outputs(self) -> InstanceOutputs:
        """The outputs of the instances that wait for their temperatures."""

    @property
    def step_count(self) -> int:
        """Number of updates so far."""

    @property
    def total_steps(self) -> int:
        """Number of updates in the schedule."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates in an epoch."""

    def stay_plain(self, reason: str) -> None:
        """Compute updates operation by operation from now on."""


def end_of_advance(run: Steppable, steps: int | None) -> int:
    """Return the update at which an advance by so many steps ends; None means at the end of the schedule."""
    if steps is not None and steps < 1:
        raise ValueError(f"the number of steps must be at least 1, not {steps}")
    return run.total_steps if steps is None else min(run.step_count + steps, run.total_steps)


def advance(run: Steppable, step: Callable[[Temperature], ResultT], policy: Policy, end: int) -> ResultT:
    """Step a run with a policy on its device up to an update; return the last step's result.

    A run that is done, because it has diverged, ends with its epoch at the latest.
    """
    has_gradient = getattr(policy, "has_gradient", False)
    if has_gradient:
        run.stay_plain("the temperatures carry gradients")
    while True:
        with torch.set_grad_enabled(has_gradient):
            temperature = policy(run.outputs)
        result = step(temperature)
        epoch_over = run.step_count % run.steps_per_epoch == 0
        if run.step_count >= end or (epoch_over and result.done):
            return result


def check_temperatures(temperature: Temperature, count: int) -> None:
    """Check that there is a temperature for teacher and student for each instance."""
    if temperature.student.shape != (count,) or temperature.teacher.shape != (count,):
        raise ValueError(
            f"expected {count} temperatures each for teacher and student, "
            f"got {tuple(temperature.teacher.shape)} and {tuple(temperature.student.shape)}"
        )
