"""What the student gained by an update: named batch rewards.

A reward is the fall of a potential of the student, measured after the update that the temperatures caused, so the
rewards of an episode add up to the whole run's gain. Where parts of the probe images take turns, this holds for the
updates of a turn alone: a run's rewards add up to an estimate of its gain. To add a reward, write its potential under a
``@reward`` line: in this module it gets a name in :data:`REWARDS`; from any other module it is named
``package.module:function``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from rlkd_env.data import ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.registry import Registry, instance_of


@dataclass(frozen=True)
class Measurement:
    """What a potential may look at after an update.

    Attributes:
        outputs: the outputs of the batch that comes next, forwarded through the updated student.
        evaluate: forwards images through the updated student.
        probe: the images that the reward is measured on: the run's fixed probe images, or the part whose turn it is.
        parts: the probe images in parts that may take turns.
        average: from the mean over a process' share of the batch to the mean over the whole batch. Every mean over the
            batch must go through it, so that a reward works in a distributed run.
    """

    outputs: InstanceOutputs
    evaluate: Callable[[ImageSet], Evaluation]
    probe: ImageSet
    parts: Sequence[ImageSet] = ()
    average: Callable[[Tensor], Tensor] = lambda mean: mean

    def evaluate_probe(self) -> Evaluation:
        """Forward the probe images, or the part whose turn it is, through the updated student."""
        return self.evaluate(self.probe)


Potential = Callable[[Measurement], Tensor]


@dataclass(frozen=True)
class Reward:
    """A potential, whose fall is the reward; smaller is better.

    One that evaluates the probe images needs a forward pass of all of them, and ``needs_probe`` says so. If it
    ``takes_turns``, it needs one of a part of them, about two batches, which stays for several updates.
    """

    potential: Potential
    needs_probe: bool = False
    takes_turns: bool = False

    @property
    def __wrapped__(self) -> Potential:
        return self.potential


def reward(needs_probe: bool = False, takes_turns: bool = False) -> Callable[[Potential], Reward]:
    """Return a decorator that makes a :class:`Reward` of a potential."""
    return lambda potential: Reward(potential, needs_probe, takes_turns)


@reward()
def train_progress(measurement: Measurement) -> Tensor:
    """Excess loss, student's minus teacher's cross-entropy in nats, of the next batch; costs no extra forward pass.

    It compares two batches of different images, so most of it is noise.
    """
    outputs = measurement.outputs
    return measurement.average((outputs.student_cross_entropy - outputs.teacher_cross_entropy).mean())


@reward(needs_probe=True)
def probe_loss(measurement: Measurement) -> Tensor:
    """Cross-entropy on the probe images in nats."""
    return measurement.evaluate_probe().loss


@reward(needs_probe=True, takes_turns=True)
def probe_turns(measurement: Measurement) -> Tensor:
    """Cross-entropy in nats on a part of the probe images; the parts take turns."""
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


TURN = 16
"""Measurements on a part of the probe images before the next part's turn; each turn costs one more."""


class RewardMeter:
    """Turns a potential into rewards.

    Nobody is paid for some updates, such as those of a warm-up. Where such updates end in the middle of an interval, a
    fresh measurement is taken, so that the next reward is for the updates from there on.

    Where parts of the probe images take turns, a part stays for :data:`TURN` measurements that somebody is paid for. In
    updates that nobody is paid for, the probe images are measured once in as many of them, or once in an epoch where
    that is longer.

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
        self._find_reward()
        self.is_measured = True
        self._evaluation: Evaluation | None = None
        self._last = torch.zeros(())
        self._updates = self._turn = 0
        self._was_rewarded = True

    def _find_reward(self) -> None:
        self._reward = REWARDS[self.name]
        self._potential = self._reward.potential

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the functions, which are found again by name."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_reward", "_potential")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._find_reward()

    def measures_all(self, parts: Sequence[ImageSet]) -> bool:
        """Whether all probe images, which come in parts, are forwarded after every update that somebody is paid for."""
        return self._reward.needs_probe and not self._takes_turns(parts) and self.interval == 1

    def _takes_turns(self, parts: Sequence[ImageSet]) -> bool:
        return self._reward.takes_turns and len(parts) > 1

    @property
    def _turn_length(self) -> int:
        """Updates of a turn."""
        return self.interval * TURN

    def fresh(self, num_runs: int | None = None) -> RewardMeter:
        """Return a meter of the same reward that has measured nothing, for one run or for K stacked ones."""
        return RewardMeter(self.name, self.interval, num_runs)

    def reset(self, measurement: Measurement) -> None:
        """Take the first measurement of a run, or of K."""
        self._turn = 0
        self._was_rewarded = True
        self._restart(measurement)

    def before_update(self, measurement: Measurement, is_rewarded: bool) -> None:
        """Measure anew if somebody is rewarded from this update on and the last measurement is older than that."""
        if is_rewarded and not self._was_rewarded and self._updates % self._present_interval(measurement.outputs):
            self._restart(measurement)
        self._was_rewarded = is_rewarded

    def _present_interval(self, outputs: InstanceOutputs) -> int:
        """Updates between two measurements at present."""
        if self._was_rewarded or not self._reward.needs_probe:
            return self.interval
        return max(self._turn_length, round(outputs.updates / outputs.epochs))

    def _restart(self, measurement: Measurement) -> None:
        self._last = self._measure(measurement)
        self._updates = 0

    def after_update(self, measurement: Measurement, is_last: bool) -> Tensor:
        """Return the reward of an update on the run's device; no dimensions, or ``(K,)``."""
        self._updates += 1
        self.is_measured = is_last or self._updates % self._present_interval(measurement.outputs) == 0
        if not self.is_measured:
            return torch.zeros_like(self._last)
        potential = self._measure(measurement)
        reward = self._last - potential
        is_turn_over = self._was_rewarded and self._updates % self._turn_length == 0
        if is_turn_over and self._takes_turns(measurement.parts):
            self._turn += 1
            potential = self._measure(measurement)
        self._last = potential
        return reward

    def figures(self) -> dict[str, Tensor]:
        """Return the student's ``probe_loss`` and ``probe_accuracy`` if the latest update's reward took them.

        They have no dimensions, or are ``(K,)``, and are of those probe images that the reward looked at.
        """
        if self._evaluation is None or not self.is_measured:
            return {}
        return {"probe_loss": self._evaluation.loss, "probe_accuracy": self._evaluation.accuracy}

    def _measure(self, measurement: Measurement) -> Tensor:
        evaluate_all = measurement.evaluate

        def evaluate(images: ImageSet) -> Evaluation:
            self._evaluation = evaluate_all(images)
            return self._evaluation

        measurement = replace(measurement, evaluate=evaluate)
        if self._reward.takes_turns:
            measurement = replace(measurement, probe=measurement.parts[self._turn % len(measurement.parts)])
        if self.num_runs is None:
            return self._potential(measurement)
        outputs = measurement.outputs

        def of_one_run(run: Tensor, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
            of_run = InstanceOutputs(student_logits, teacher_logits, labels, outputs.progress, epoch=outputs.epoch)
            of_images = replace(measurement, outputs=of_run, evaluate=lambda images: _of_run(evaluate(images), run))
            return self._potential(of_images)

        runs = torch.arange(self.num_runs, device=outputs.labels.device)
        instances = (outputs.student_logits.detach(), outputs.teacher_logits, outputs.labels)
        return vmap(of_one_run)(runs, *(values.unflatten(0, (self.num_runs, -1)) for values in instances))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next rewards depend on."""
        names = ("updates", "turn", "was_rewarded")
        return {"last": self._last.clone(), **{name: getattr(self, f"_{name}") for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._last = state["last"].to(self._last.device).clone()
        self._updates = state["updates"]
        self._turn = state.get("turn", 0)  # which older states do not tell
        self._was_rewarded = state.get("was_rewarded", True)


def _of_run(everyone: Evaluation, run: Tensor) -> Evaluation:
    """Pick one run's figures ``(1,)`` out of those of K runs ``(K,)``."""
    accuracy, loss, confidence = (
        values.gather(0, run) for values in (everyone.accuracy, everyone.loss, everyone.confidence)
    )
    return Evaluation(accuracy, loss, confidence)
