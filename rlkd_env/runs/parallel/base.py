"""What K runs at once offer, whichever way they are computed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import ImageSet
from rlkd_env.data.images import MemoryImages
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.runs.hooks import StepResult, Watched
from rlkd_env.runs.loop import UpdateResult, advance, check_temperatures, end_of_advance
from rlkd_env.runs.run import STATE_VERSION, DistillationRun
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.choices import RunMode
from rlkd_env.utils.randomness import seeded


class ParallelResult(StepResult):
    """What one step did to K runs of B instances each: all rows of the runs' batches, one run after another.

    The rewards, divergences and metrics are ``(K,)`` each. A run that has diverged stays so, and earns its penalty in
    that step and 0 from then on.
    """

    def of_run(self, run: int) -> StepResult:
        """Return what the step did to one of the runs, numbered from 0."""
        whole, size = self.outputs.map(Tensor.detach), len(self.outputs.labels) // self.outputs.num_runs
        own = slice(run * size, (run + 1) * size)
        outputs = replace(whole.map(lambda values: values[own]), num_runs=1)
        metrics = {name: values[run] for name, values in self.metrics.items()}
        done = (self.finished, self.diverged[run], metrics)
        return StepResult(self.reward[run], self.state[own], *done, outputs, self.temperature.rows(own))


class ParallelRuns(ABC, Watched["ParallelRuns"]):
    """K distillations at once, in lock-step.

    Run k is the run of a :class:`~rlkd_env.runs.run.DistillationRun` with its seed. Instance i of run k is row k·B + i
    of everything per instance, so features, rules and learned policies take K runs for one large batch. A run that
    diverges stays in the lock-step, as an absorbing state: it earns the penalty once and 0 from then on, whatever its
    temperatures, until all runs end.

    Attributes:
        template: a run of the ingredients that all share; it is neither started nor changed.
        mode: how the runs are computed: ``"stacked"``, ``"workers"`` or ``"serial"``.
        keeps_gradients: whether the outputs' student logits carry gradients to the students.
        diverged: ``(K,)`` whether a run has diverged.
        outputs: those of the K·B instances that wait for their temperatures.

    Raises:
        UsageError: if there is less than one run, or the mode cannot compute them.
    """

    mode: RunMode
    keeps_gradients = False
    diverged: Tensor
    outputs: InstanceOutputs

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        if num_runs < 1:
            raise UsageError(f"the number of runs must be at least 1, not {num_runs}")
        self.template = template
        self.num_runs = num_runs
        self.batch_size = template.batch_size
        self.device = template.device
        self.state = template.state
        self.total_steps = template.total_steps
        self.steps_per_epoch = template.steps_per_epoch
        self.seeds: tuple[int, ...] = ()
        self.step_count = 0
        self._hooks = []

    @property
    def num_instances(self) -> int:
        """Instances a step over all runs, K·B."""
        return self.num_runs * self.batch_size

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.step_count // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the schedule is over."""
        return self.step_count >= self.total_steps

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Start over with fresh students, one for each seed; return the first batches' state ``(K·B, d)``.

        Raises:
            ValueError: if there are not K seeds.
        """
        if len(seeds) != self.num_runs:
            raise ValueError(f"expected {self.num_runs} seeds, got {len(seeds)}")
        self.seeds, self.step_count = tuple(seeds), 0
        self.diverged = torch.zeros(self.num_runs, dtype=torch.bool, device=self.device)
        self._start()
        return self._observe()

    def step(self, temperature: Temperature, is_rewarded: bool = True) -> ParallelResult:
        """Update every student with its instances' temperatures ``(K·B,)``, and forward the next batches.

        For ``is_rewarded`` see :meth:`DistillationRun.step`.
        """
        self._check_ready()
        check_temperatures(temperature, self.num_instances)
        had_diverged, watched = self.diverged, temperature.detach()
        for hook in self._hooks:
            hook.before_update(self, watched)
        self.step_count += 1
        update = self._update(temperature, is_rewarded)
        self.diverged = had_diverged | update.diverged
        reward, state = torch.where(had_diverged, 0.0, update.reward), self._observe()
        done = (self.finished, self.diverged, update.metrics)
        result = ParallelResult(reward, state, *done, update.outputs, watched)
        for hook in self._hooks:
            hook.on_step(self, result)
        if self.step_count % self.steps_per_epoch == 0:
            for hook in self._hooks:
                hook.on_epoch_end(self)
        return result

    def advance(self, policy: Policy, steps: int | None = None) -> ParallelResult:
        """Step with a policy for all K·B instances, as :meth:`DistillationRun.advance` does.

        Once all runs have diverged it ends with the epoch at the latest.
        """
        self.check_policy(policy)
        end = end_of_advance(self, steps)
        self._check_ready()
        return advance(self, partial(self.step, is_rewarded=False), policy, end)

    def stay_plain(self, reason: str) -> None:
        """Compute updates operation by operation from now on, for these students."""

    def check_policy(self, policy: Policy) -> None:
        """Check that a policy can serve all runs: it may not learn along or carry gradients in vain.

        Raises:
            UsageError: if its temperatures carry gradients that would not reach the students, or it learns along.
        """
        if isinstance(policy, nn.Module) and any(parameter.requires_grad for parameter in policy.parameters()):
            raise UsageError("a policy that is learned along with one student cannot serve several runs")
        if getattr(policy, "has_gradient", False) and not self.keeps_gradients:
            raise UsageError(
                f"temperatures that carry gradients need stacked runs, not the mode {self.mode}: give the rule the "
                "option gradient False"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return all runs as tensors and plain values, independent of them from now on.

        ``state_dict()["runs"][k]`` is the state of a :class:`~rlkd_env.runs.run.DistillationRun`, so a run can go on
        alone, and runs of one mode in another.

        Raises:
            RuntimeError: if the runs were not started.
        """
        if not self.seeds:
            raise RuntimeError("the runs are not started: call reset()")
        own = {"step_count": self.step_count, "diverged": self.diverged.clone()}
        return {"version": STATE_VERSION, "runs": self._run_states(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from :meth:`state_dict` and return the waiting batches' state ``(K·B, d)``.

        Raises:
            UsageError: if the state is of another version or number of runs, or its runs are not at the same step.
        """
        if state.get("version") != STATE_VERSION:
            raise UsageError(f"runs' state of version {state.get('version')} cannot be read, only {STATE_VERSION}")
        runs = copy.deepcopy(state["runs"])
        if len(runs) != self.num_runs:
            raise UsageError(f"a state of {len(runs)} runs does not fit {self.num_runs}")
        if len({run["step_count"] for run in runs}) > 1:
            raise UsageError("the runs of a state must all be at the same step")
        self.seeds, self.step_count = tuple(run["seed"] for run in runs), runs[0]["step_count"]
        self.diverged = state["diverged"].to(self.device, copy=True)
        self._restore(runs)
        return self._observe()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickled runs are made again from the template and the state."""
        return _remade, (type(self), self.template, self.num_runs, self.state_dict() if self.seeds else None)

    def students(self) -> list[nn.Module]:
        """Return independent copies of the students, in the runs' order, on the runs' device."""
        students = []
        for weights in self.weights():
            with seeded(0, self.device):  # the weights are replaced
                student = self.template.create_student().to(self.device)
            student.load_state_dict(weights)
            students.append(student)
        return students

    @abstractmethod
    def weights(self) -> list[dict[str, Tensor]]:
        """Return the students' state dicts, in the runs' order, independent of the runs from now on.

        Where the recipe keeps an average of a student's weights, it is that.
        """

    def evaluate_validation(self) -> Evaluation:
        """Measure all students on the validation images, as :meth:`evaluate` does."""
        return self.evaluate(self.template.splits.validation)

    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure all students on a set of images: accuracy ``(K,)`` and loss ``(K,)``, on the device."""
        return joined_evaluations(self.template.task.evaluate(student, images) for student in self.students())

    def close(self) -> None:
        """End what computes the runs; they cannot be used any more."""

    def _check_ready(self) -> None:
        if not self.seeds or self.finished:
            raise RuntimeError("the runs are over or not started: call reset()")

    def _observe(self) -> Tensor:
        """Return the state ``(K·B, d)`` of the instances that wait."""
        return self.state(self.outputs)

    @abstractmethod
    def _start(self) -> None:
        """Create the students of the seeds, forward the first batches into ``outputs``, measure for the reward."""

    @abstractmethod
    def _update(self, temperature: Temperature, is_rewarded: bool) -> UpdateResult:
        """Make one update, forward the next batches into ``outputs``, and measure; the step is counted already."""

    @abstractmethod
    def _run_states(self) -> list[dict[str, Any]]:
        """Return every run's state as that of a DistillationRun."""

    @abstractmethod
    def _restore(self, states: list[dict[str, Any]]) -> None:
        """Restore :meth:`_run_states` for the seeds and the step count, which are set already."""


def _remade(
    kind: type[ParallelRuns], template: DistillationRun, num_runs: int, state: dict[str, Any] | None
) -> ParallelRuns:
    runs = kind(template, num_runs)
    if state is not None:
        runs.load_state_dict(state)
    return runs


def joined_evaluations(found: Iterable[Evaluation]) -> Evaluation:
    """Return the figures of K students as one: accuracy, loss and confidence ``(K,)`` each."""
    rows = [torch.stack([one.accuracy, one.loss, one.confidence]) for one in found]
    return Evaluation(*torch.stack(rows, dim=1))


def own_images(images: ImageSet, num_runs: int) -> ImageSet:
    """Return training images for one of K runs: the pixels shared, but not the memory of random views.

    Processes that read ahead are shared out among the runs.
    """
    if isinstance(images, StreamedImages):
        return replace(images, workers=images.workers // num_runs)
    return replace(images) if isinstance(images, MemoryImages) else images
