"""What the student gained by an update: named batch rewards.

A reward is the fall of a potential of the student, measured after the update that the temperatures caused, so the
rewards of an episode add up to the whole run's gain. To add one, write its potential under a ``@reward`` line: in this
module it gets a name in :data:`REWARDS`; from any other module it is named ``package.module:function``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.registry import Registry, instance_of


@dataclass(frozen=True)
class Measurement:
    """What a potential may look at after an update.

    Attributes:
        outputs: the outputs of the batch that comes next, forwarded through the updated student.
        evaluate_probe: forwards the run's fixed probe images through the updated student.
        average: from the mean over a process' share of the batch to the mean over the whole batch. Every mean over the
            batch must go through it, so that a reward works in a distributed run.
    """

    outputs: InstanceOutputs
    evaluate_probe: Callable[[], Evaluation]
    average: Callable[[Tensor], Tensor] = lambda mean: mean


Potential = Callable[[Measurement], Tensor]


@dataclass(frozen=True)
class Reward:
    """A potential, whose fall is the reward; smaller is better.

    One that evaluates the probe images needs a forward pass of all of them, and ``needs_probe`` says so.
    """

    potential: Potential
    needs_probe: bool = False

    @property
    def __wrapped__(self) -> Potential:
        return self.potential


def reward(needs_probe: bool = False) -> Callable[[Potential], Reward]:
    """Return a decorator that makes a :class:`Reward` of a potential."""
    return lambda potential: Reward(potential, needs_probe)


@reward()
def train_progress(measurement: Measurement) -> Tensor:
    """Excess loss, student's minus teacher's cross-entropy in nats, of the next batch; costs no extra forward pass."""
    outputs = measurement.outputs
    return measurement.average((outputs.student_cross_entropy - outputs.teacher_cross_entropy).mean())


@reward(needs_probe=True)
def probe_loss(measurement: Measurement) -> Tensor:
    """Cross-entropy on the probe images in nats."""
    return measurement.evaluate_probe().loss


@reward(needs_probe=True)
def log_probe_loss(measurement: Measurement) -> Tensor:
    """Logarithm of the cross-entropy on the probe images; its fall is a share of the loss, early and late alike."""
    return measurement.evaluate_probe().loss.log()


@reward(needs_probe=True)
def probe_accuracy(measurement: Measurement) -> Tensor:
    """Share of wrong predictions on the probe images."""
    return 1.0 - measurement.evaluate_probe().accuracy


REWARDS: Registry[Reward] = Registry(
    "reward",
    {name: part for name, part in list(globals().items()) if isinstance(part, Reward)},
    instance_of(Reward, "a potential under a @reward line"),
)


class RewardMeter:
    """Turns a potential into rewards.

    Nobody is paid for some updates, such as those of a warm-up. Where such updates end in the middle of an interval, a
    fresh measurement is taken, so that the next reward is for the updates from there on.

    Args:
        reward: a name in :data:`REWARDS`, ``package.module:name``, or a :class:`Reward`.
        interval: updates between two measurements, in which the rewards are 0 (``is_measured`` is false); their gain
            comes with the next measurement. The last update of a run is always measured.
        num_runs: number K of runs whose students are stacked and measured at once, which gives rewards ``(K,)``.

    Raises:
        UsageError: if the name is unknown or the interval is below 1.
    """

    def __init__(self, reward: str | Reward = "probe_loss", interval: int = 1, num_runs: int | None = None) -> None:
        if interval < 1:
            raise UsageError(f"the reward interval must be at least 1 update, not {interval}")
        self.name = REWARDS.name_of(reward)
        self.interval = interval
        self.num_runs = num_runs
        self._reward = REWARDS[self.name]
        self._potential = self._reward.potential
        self.is_measured = True
        self._last = torch.zeros(())
        self._updates = 0
        self._was_rewarded = True

    @property
    def measures_probe(self) -> bool:
        """Whether all probe images are forwarded after every update."""
        return self._reward.needs_probe and self.interval == 1

    def fresh(self, num_runs: int | None = None) -> RewardMeter:
        """Return a meter of the same reward that has measured nothing, for one run or for K stacked ones."""
        return RewardMeter(self.name, self.interval, num_runs)

    def reset(self, measurement: Measurement) -> None:
        """Take the first measurement of a run, or of K."""
        self._last = self._measure(measurement)
        self._updates = 0
        self._was_rewarded = True

    def before_update(self, measurement: Measurement, is_rewarded: bool) -> None:
        """Measure anew if somebody is rewarded from this update on and the last measurement is older than that."""
        if is_rewarded and not self._was_rewarded and self._updates % self.interval:
            self.reset(measurement)
        self._was_rewarded = is_rewarded

    def after_update(self, measurement: Measurement, is_last: bool) -> Tensor:
        """Return the reward of an update on the run's device; no dimensions, or ``(K,)``."""
        self._updates += 1
        self.is_measured = is_last or self._updates % self.interval == 0
        if not self.is_measured:
            return torch.zeros_like(self._last)
        potential = self._measure(measurement)
        reward = self._last - potential
        self._last = potential
        return reward

    def _measure(self, measurement: Measurement) -> Tensor:
        if self.num_runs is None:
            return self._potential(measurement)
        outputs, evaluate = measurement.outputs, measurement.evaluate_probe

        def of_one_run(run: Tensor, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
            of_run = InstanceOutputs(student_logits, teacher_logits, labels, outputs.progress, epoch=outputs.epoch)
            return self._potential(Measurement(of_run, lambda: _of_run(evaluate(), run)))

        runs = torch.arange(self.num_runs, device=outputs.labels.device)
        instances = (outputs.student_logits.detach(), outputs.teacher_logits, outputs.labels)
        return vmap(of_one_run)(runs, *(values.unflatten(0, (self.num_runs, -1)) for values in instances))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next rewards depend on."""
        return {"last": self._last.clone(), "updates": self._updates, "was_rewarded": self._was_rewarded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._last = state["last"].to(self._last.device).clone()
        self._updates = state["updates"]
        self._was_rewarded = state.get("was_rewarded", True)  # which older states do not tell


def _of_run(everyone: Evaluation, run: Tensor) -> Evaluation:
    """Pick one run's figures ``(1,)`` out of those of K runs ``(K,)``."""
    accuracy, loss, confidence = (
        values.gather(0, run) for values in (everyone.accuracy, everyone.loss, everyone.confidence)
    )
    return Evaluation(accuracy, loss, confidence)
