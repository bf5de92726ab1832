"""The knowledge-distillation run, step by step, in plain PyTorch."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from rlkd_env.data import Batch, ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.methods import Method
from rlkd_env.runs.hooks import StepResult, Watched
from rlkd_env.runs.ingredients import Ingredients
from rlkd_env.runs.loop import TrainingLoop, advance, check_temperatures, end_of_advance
from rlkd_env.sampling.base import Sampler
from rlkd_env.tasks import Evaluation
from rlkd_env.training.collective import Collective
from rlkd_env.training.update import Update

STATE_VERSION = 2


@dataclass(eq=False)
class DistillationRun(Ingredients, Watched["DistillationRun"]):
    """A student's distillation from a teacher, one update at a time.

    The forward of the student that makes a state is the one whose loss the next step takes, so a step costs one forward
    of each network and one backward, like plain KD. The arguments are those of
    :class:`~rlkd_env.runs.ingredients.Ingredients`. The seed is -1 before the first reset.
    """

    seed: int = field(init=False, default=-1)
    update: Update = field(init=False)
    collective: Collective = field(init=False, default_factory=Collective)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hooks = []
        self._loop: TrainingLoop | None = None

    @property
    def num_processes(self) -> int:
        """Number of processes that share the run."""
        return self.collective.count

    @property
    def step_count(self) -> int:
        """Number of updates so far."""
        return 0 if self._loop is None else self._loop.step_count

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.step_count // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Share of the schedule that is over."""
        return self.step_count / self.total_steps

    @property
    def finished(self) -> bool:
        """Whether the schedule is over."""
        return self.step_count >= self.total_steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return self.update.optimization.learning_rate

    @property
    def student(self) -> nn.Module:
        """The student in training."""
        return self.update.student

    @property
    def method(self) -> Method:
        """The KD method with its trained parts."""
        return self.update.method

    @property
    def policy(self) -> nn.Module | None:
        """The policy of the run's own, if it has one."""
        return self.update.policy

    @property
    def batch(self) -> Batch:
        """The batch that waits for its temperatures."""
        return self.update.batch

    @property
    def outputs(self) -> InstanceOutputs:
        """The outputs of the batch that waits."""
        return self.update.outputs

    @property
    def measures_probe(self) -> bool:
        """Whether the reward forwards all probe images after every update that somebody is paid for."""
        return self.reward.measures_all(self.probe_parts)

    def use_sampler(self, sampler: Sampler) -> None:
        """Let a sampler choose the batches; the run must be reset or restored afterwards."""
        self.sampler = sampler
        self._loop = None

    def reset(self, seed: int) -> Tensor:
        """Start over with a fresh student and return the first batch's state ``(N, d)``."""
        self._begin(seed).start()
        return self._observe()

    def step(self, temperature: Temperature, is_rewarded: bool = True) -> StepResult:
        """Update the student with these temperatures and forward the next batch.

        Args:
            temperature: ``(N,)`` positive values each for teacher and student, on the run's device.
            is_rewarded: whether anybody earns the reward; after updates for which nobody does, a delayed reward
                (``reward_interval``) counts from the first one for which somebody does.

        Raises:
            RuntimeError: if the run was not started or its schedule is over.
            ValueError: if there are not N temperatures.
        """
        loop = self._ready()
        check_temperatures(temperature, len(self.outputs.labels))
        watched = temperature.detach()
        for hook in self._hooks:
            hook.before_update(self, watched)
        done = loop.step(temperature, is_rewarded)
        state = self._observe()
        result = StepResult(done.reward, state, loop.finished, done.diverged, done.metrics, done.outputs, watched)
        for hook in self._hooks:
            hook.on_step(self, result)
        if loop.step_count % self.steps_per_epoch == 0:
            for hook in self._hooks:
                hook.on_epoch_end(self)
        return result

    def advance(self, policy: Policy | None = None, steps: int | None = None) -> StepResult:
        """Step with a policy on the device, without a round trip to the host, and return the last step's result.

        Nobody earns the rewards of these updates.

        Args:
            policy: chooses the temperatures of every batch from its outputs; None takes the run's own.
            steps: number of updates, at least 1 and at most to the end of the schedule; None means to the end. After a
                divergence the advance ends with the epoch at the latest.
        """
        end = end_of_advance(self, steps)
        return advance(self, partial(self.step, is_rewarded=False), self._policy_or_own(policy), end)

    def stay_plain(self, reason: str) -> None:
        """Compute this student's updates operation by operation from now on; a CPU does so anyway."""
        self.update.stay_plain(reason)

    def observe(self) -> Tensor:
        """Return the state of the waiting batch ``(N, d)``."""
        return self._observe()

    def evaluate_validation(self) -> Evaluation:
        """Measure the student, or the average of its weights, on the validation images; the result stays there."""
        return self.evaluate_student(self.splits.validation)

    def evaluate_student(self, images: ImageSet) -> Evaluation:
        """Measure the student that a run is for: with the average of its weights, if the recipe keeps one."""
        with self.update.optimization.averaged():
            return self.collective.evaluate(partial(self.task.evaluate, self.student), images)

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of the student that a run is for, independent of the run from now on."""
        with self.update.optimization.averaged():
            return copy.deepcopy(self.student.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the whole run as tensors and plain values, independent of the run from now on.

        Raises:
            RuntimeError: if the run was not started.
        """
        if self._loop is None:
            raise RuntimeError("the run is not started: call reset()")
        return copy.deepcopy({"version": STATE_VERSION, "seed": self.seed, **self._loop.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from :meth:`state_dict`, bit for bit on a CPU, and return the waiting batch's state ``(N, d)``.

        Raises:
            UsageError: if the state is of another version, or of a run with a sampler or a policy of its own where this
                one has none, or vice versa.
        """
        if state.get("version") != STATE_VERSION:
            raise UsageError(f"a run's state of version {state.get('version')} cannot be read, only {STATE_VERSION}")
        self._begin(state["seed"]).load_state_dict(copy.deepcopy(state))
        return self._observe()

    def fork(self) -> DistillationRun:
        """Return an independent copy without hooks; data and teacher are shared, as neither changes."""
        clone = self._with(_hooks=[], reward=copy.copy(self.reward), sampler=copy.copy(self.sampler))
        clone.load_state_dict(self.state_dict())
        return clone

    def sibling(self, train: ImageSet | None = None) -> DistillationRun:
        """Return another run of the same ingredients, not started and without hooks; what never changes is shared.

        Given ``train``, the same images handed out in another way, it has a memory of the teacher's logits of its own.
        """
        run = self._with(_hooks=[], reward=self.reward.fresh(), sampler=copy.deepcopy(self.sampler), _loop=None)
        if train is not None:
            run.splits = replace(self.splits, train=train)
            run._share_logits()
        return run

    def _with(self, **changed: Any) -> DistillationRun:
        """Return a run that shares all but a few attributes."""
        run = object.__new__(type(self))
        run.__dict__.update(self.__dict__ | changed)
        return run

    def __deepcopy__(self, memo: dict[int, Any]) -> DistillationRun:
        memo[id(self)] = copied = self.sibling() if self._loop is None else self.fork()
        memo[id(self.sampler)] = copied.sampler
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickled run is made again from: its ingredients, and its state if it is started."""
        ingredients = {field.name: getattr(self, field.name) for field in fields(Ingredients)}
        return {"ingredients": ingredients, "state": None if self._loop is None else self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state["ingredients"])
        if state["state"] is not None:
            self.load_state_dict(state["state"])

    def _begin(self, seed: int) -> TrainingLoop:
        """Create a fresh student and the loop that trains it."""
        collective, sampler = self.collective, self.sampler
        stream = self.create_stream(seed, collective.share)
        self.seed, self.update = seed, self.create_update(seed, stream, collective)
        draw = self.draw_batches(stream, self.update)
        evaluate = self.probe_evaluation(partial(self.task.evaluate_probe, self.student), self.student)
        self._loop = TrainingLoop(
            self,
            self.update,
            partial(sampler.next_batch, stream) if sampler is not None else lambda run: draw(run.step_count),
            self.reward,
            partial(collective.evaluate, evaluate),
            collective,
        )
        return self._loop

    def _ready(self) -> TrainingLoop:
        if self._loop is None or self._loop.finished:
            raise RuntimeError("the run is over or not started: call reset()")
        return self._loop

    def _policy_or_own(self, policy: Policy | None) -> Policy:
        if policy is None and self.create_policy is None:
            raise ValueError("the run has no policy of its own: give one")
        self._ready()
        return cast(Policy, self.policy) if policy is None else policy

    def _observe(self) -> Tensor:
        return self.collective.to_first(self.update.state)
