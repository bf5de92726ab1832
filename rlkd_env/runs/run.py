"""The knowledge-distillation run, step by step, in plain PyTorch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlkd_env.data import Batch, BatchStream, ImageSet, Splits
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import Policy, Temperature, TemperatureRange
from rlkd_env.methods import Method
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.reward import Measurement, RewardMeter
from rlkd_env.sampling.base import Sampler
from rlkd_env.tasks import Evaluation, Task
from rlkd_env.training.logits_cache import TeacherCache
from rlkd_env.training.recipe import Recipe
from rlkd_env.utils.choices import Temperatures
from rlkd_env.utils.randomness import is_stochastic, seeded

STATE_VERSION = 2


@dataclass(eq=False)
class DistillationRun:
    """A student's distillation from a teacher, one update at a time.

    The student's forward that makes a state is the one whose loss the next step takes, so a step costs one forward
    of each network and one backward, like plain KD.

    Args:
        task: how networks are forwarded and evaluated.
        splits: train, probe and validation images, on the device.
        teacher: on the device; put into evaluation mode and frozen here.
        create_student: returns a fresh student on the CPU, drawing from torch's global generator.
        create_method: returns the KD method for a student, with fresh parameters, drawing from the same.
        state: features of the instances.
        reward: how the student's gain is measured.
        temperature_range: what agents may choose; the run itself takes any positive temperature.
        recipe: optimiser, schedule, epochs and batch size.
        probe_size: number of probe images that the reward is measured on, the same all through.
        divergence_penalty: the reward of an update that diverges.
        teacher_deviation: mean standard deviation of the teacher's logits, the unit of relative temperatures.
        views: random views of every training image that are shown in turn; None shows new ones in every epoch.
        teacher_cache_bytes: memory for the teacher's logits on views that come back; 0 forwards the teacher every time.
        temperatures: whether agents choose one temperature an instance, or one each for teacher and student.

    Raises:
        UsageError: if a batch is larger than the training set.
    """

    task: Task
    splits: Splits
    teacher: nn.Module
    create_student: Callable[[], nn.Module]
    create_method: Callable[[nn.Module], Method]
    state: InstanceState
    reward: RewardMeter
    temperature_range: TemperatureRange
    recipe: Recipe
    probe_size: int = 512
    divergence_penalty: float = -10.0
    teacher_deviation: float = 1.0
    views: int | None = None
    teacher_cache_bytes: int = 0
    temperatures: Temperatures = "shared"
    sampler: Sampler | None = None
    """Chooses the batches in the stream's place."""
    create_policy: Callable[[int], nn.Module] | None = None
    """Returns the run's own policy for a seed, with fresh parameters, which the run's optimiser trains."""

    seed: int = field(init=False, default=-1)
    step_count: int = field(init=False, default=0)
    student: nn.Module = field(init=False)
    method: Method = field(init=False)
    policy: nn.Module | None = field(init=False, default=None)
    """The run's own, if it has one."""
    optimizer: torch.optim.Optimizer = field(init=False)
    method_optimizer: torch.optim.Optimizer | None = field(init=False, default=None)
    """Of the method's parameters that it does not leave to the run's optimiser."""
    batch: Batch = field(init=False)
    """That waits for its temperatures."""
    outputs: InstanceOutputs = field(init=False)
    """Of the batch that waits."""
    trained_student: nn.Module = field(init=False)
    """What is called for the forward that gradients come from: the student, or what averages its gradients."""
    trained_method: nn.Module = field(init=False)
    """Likewise of the method."""

    def __post_init__(self) -> None:
        self.device = self.splits.train.labels.device
        self.frozen_teacher = self.task.engine.freeze(self.teacher, self.splits.image_shape)
        self._stream = BatchStream(self.splits.train, self.recipe.batch_size, 0, self.views)
        self.steps_per_epoch = self._stream.batches_per_epoch
        self.total_steps = self.steps_per_epoch * self.recipe.epochs
        probe = self.splits.probe
        self.probe = probe.subset(torch.arange(min(self.probe_size, len(probe))))
        self._hooks: list[RunHook[DistillationRun]] = []
        self._cache: TeacherCache | None = None
        self._started = False

    @property
    def batch_size(self) -> int:
        """Instances a batch, N."""
        return self.recipe.batch_size * self.task.instances_per_image

    @property
    def num_processes(self) -> int:
        """Number of processes that share the run."""
        return 1

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
        """Of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def hooks(self) -> tuple[RunHook[DistillationRun], ...]:
        """The hooks that watch the run, in the order in which they are called."""
        return tuple(self._hooks)

    def add_hook(self, hook: RunHook[DistillationRun], first: bool = False) -> None:
        """Let a hook watch the run, after the hooks that watch it already or ahead of them all."""
        self._hooks.insert(0 if first else len(self._hooks), hook)

    def remove_hook(self, hook: RunHook[DistillationRun]) -> None:
        """Stop a hook from watching the run.

        Raises:
            ValueError: if it does not watch the run.
        """
        self._hooks.remove(hook)

    def use_sampler(self, sampler: Sampler) -> None:
        """Let a sampler choose the batches; the run must be reset or restored afterwards."""
        self.sampler = sampler
        self._started = False

    def reset(self, seed: int) -> Tensor:
        """Start over with a fresh student and return the first batch's state ``(N, d)``."""
        self._create_modules(seed)
        self.step_count = 0
        if self.sampler is not None:
            self.sampler.reset()
        state = self._forward()
        self._remember()
        self.reward.reset(self._measurement())
        self._started = True
        return state

    def step(self, temperature: Temperature) -> StepResult:
        """Update the student with these temperatures and forward the next batch.

        Args:
            temperature: ``(N,)`` positive values each for teacher and student, on the run's device.

        Raises:
            RuntimeError: if the run was not started or its schedule is over.
            ValueError: if there are not N temperatures.
        """
        self._check_ready()
        count = len(self.outputs.labels)
        if temperature.student.shape != (count,) or temperature.teacher.shape != (count,):
            raise ValueError(
                f"expected {count} temperatures each for teacher and student, "
                f"got {tuple(temperature.teacher.shape)} and {tuple(temperature.student.shape)}"
            )
        watched = temperature.detach()
        for hook in self._hooks:
            hook.before_update(self, watched)
        outputs = self.outputs
        with self._step_randomness(self.method.is_stochastic):
            losses = self.trained_method(outputs, temperature)
        loss = torch.stack(list(losses.values())).sum(dim=0).mean()
        optimizers = [self.optimizer] if self.method_optimizer is None else [self.optimizer, self.method_optimizer]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        self._schedule.step()
        with torch.no_grad():
            self.method.after_update(outputs)
        self.step_count += 1

        state = self._forward()
        self._remember()
        reward = self.reward.after_update(self._measurement(), is_last=self.finished)
        diverged = ~(
            loss.detach().isfinite() & self.outputs.student_logits.detach().isfinite().all() & reward.isfinite()
        )
        metrics, diverged = self._agree(self._metrics(loss, losses, outputs), diverged)
        result = StepResult(
            reward=torch.where(diverged, self.divergence_penalty, reward),
            state=state,
            finished=self.finished,
            diverged=diverged,
            metrics=metrics,
            outputs=outputs,
            temperature=watched,
        )
        for hook in self._hooks:
            hook.on_step(self, result)
        if self.step_count % self.steps_per_epoch == 0:
            for hook in self._hooks:
                hook.on_epoch_end(self)
        return result

    def advance(self, policy: Policy | None = None, steps: int | None = None) -> StepResult:
        """Step with a policy on the device, without a round trip to the host.

        Args:
            policy: chooses the temperatures of every batch from its outputs; None takes the run's own. Its attribute
                ``has_gradient`` says whether they carry gradients.
            steps: number of updates, at most to the end of the schedule; None means to the end.

        Returns:
            The last step's result. A divergence ends the advance at the end of its epoch at the latest.

        Raises:
            ValueError: if ``steps`` is below 1, or there is no policy.
            RuntimeError: if the run was not started or its schedule is over.
        """
        if steps is not None and steps < 1:
            raise ValueError(f"the number of steps must be at least 1, not {steps}")
        if policy is None and (policy := self.policy) is None:
            raise ValueError("the run has no policy of its own: give one")
        end = self.total_steps if steps is None else min(self.step_count + steps, self.total_steps)
        while True:
            with torch.set_grad_enabled(getattr(policy, "has_gradient", False)):
                temperature = policy(self.outputs)
            result = self.step(temperature)
            epoch_over = self.step_count % self.steps_per_epoch == 0
            if self.step_count >= end or (epoch_over and bool(result.diverged)):
                return result

    def observe(self) -> Tensor:
        """Return the state of the waiting batch ``(N, d)``."""
        return self.state(self.outputs)

    def evaluate_validation(self) -> Evaluation:
        """Measure the student on the validation images; the result stays on the device."""
        return self.task.evaluate(self.student, self.splits.validation)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole run as tensors and plain values, independent of the run from now on.

        Raises:
            RuntimeError: if the run was not started.
        """
        if not self._started:
            raise RuntimeError("the run is not started: call reset()")
        state = {
            "version": STATE_VERSION,
            "seed": self.seed,
            "step_count": self.step_count,
            "student": self.student.state_dict(),
            "method": self.method.state_dict(),
            "policy": {} if self.policy is None else self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method_optimizer": None if self.method_optimizer is None else self.method_optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "reward": self.reward.state_dict(),
            "sampler": None if self.sampler is None else self.sampler.state_dict(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from :meth:`state_dict`, bit for bit on a CPU, and return the waiting batch's state ``(N, d)``.

        Raises:
            UsageError: if the state is of another version, or of a run with a sampler where this one has none, or the
                other way round.
        """
        if state.get("version") != STATE_VERSION:
            raise UsageError(f"a run's state of version {state.get('version')} cannot be read, only {STATE_VERSION}")
        if (state.get("sampler") is None) != (self.sampler is None):
            raise UsageError(
                "a run's state with an exploration or curriculum needs a run with one, and one without needs none"
            )
        state = copy.deepcopy(state)
        self._create_modules(state["seed"])
        own, kept = {} if self.policy is None else self.policy.state_dict(), state.get("policy", {})
        if own.keys() != kept.keys():
            raise UsageError("a run's state with a policy that learns along needs a run with the same one")
        self.student.load_state_dict(state["student"])
        self.method.load_state_dict(state["method"])
        if self.policy is not None:
            self.policy.load_state_dict(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.method_optimizer is not None:
            self.method_optimizer.load_state_dict(state["method_optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step_count = state["step_count"]
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])  # it has seen the waiting batch already
        observed = self._forward()
        # The forward has moved the running statistics a second time for this batch. They are swapped back, not copied
        # into: autograd would take a copy for a change of what the waiting backward has saved.
        for name, buffer in self.student.named_buffers():
            if name in state["student"]:
                buffer.data = state["student"][name].to(buffer.device)
        self.reward.reset(self._measurement())
        self.reward.load_state_dict(state["reward"])
        self._started = True
        return observed

    def fork(self) -> DistillationRun:
        """Return an independent copy without hooks; data and teacher are shared, as neither changes."""
        clone = copy.copy(self)
        clone._hooks = []
        clone.reward = copy.copy(self.reward)
        clone.sampler = copy.copy(self.sampler)
        clone.load_state_dict(self.state_dict())
        return clone

    def sibling(self, train: ImageSet | None = None) -> DistillationRun:
        """Return another run of the same ingredients, not started and without hooks; what never changes is shared.

        Args:
            train: the same training images, handed out in another way; the memory of the teacher's logits is then the
                new run's own.
        """
        self.shared_teacher_cache()
        run = copy.copy(self)
        if train is not None:
            run.splits = replace(self.splits, train=train)
            run._cache = None
        run._hooks = []
        run.reward = RewardMeter(self.reward.name, self.reward.interval)
        run.sampler = copy.deepcopy(self.sampler)
        run._started = False
        return run

    def shared_teacher_cache(self) -> TeacherCache | None:
        """Return the memory of the teacher's logits that runs of all seeds share, or None if there can be none."""
        if self.splits.train.is_random:
            return None
        if self._cache is None:
            self._cache = self._create_cache()
        return self._cache

    def _create_modules(self, seed: int) -> None:
        self.seed = seed
        self._stream = self._create_stream(seed)
        if self._cache is None or self.splits.train.is_random:
            self._cache = self._create_cache()
        with seeded(seed, self.device):
            self.student = self.task.engine.prepare(self.create_student().to(self.device)).train()
            self.method = self.create_method(self.student).to(self.device).train()
            self.policy = None if self.create_policy is None else self.create_policy(seed).to(self.device)
        self.trained_student, self.trained_method = self.student, self.method
        self._is_stochastic = self.task.is_stochastic or is_stochastic(self.student)
        self.method_optimizer = self.method.create_optimizer()
        groups = [] if self.method_optimizer is None else self.method_optimizer.param_groups
        own = {id(parameter) for group in groups for parameter in group["params"]}
        parameters = [*self.student.parameters()]
        parameters += [parameter for parameter in self.method.parameters() if id(parameter) not in own]
        if self.policy is not None:
            parameters += [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.optimizer = self.recipe.create_optimizer(parameters)
        self._schedule = self.recipe.create_schedule(self.optimizer, self.total_steps)

    def _create_stream(self, seed: int) -> BatchStream:
        return BatchStream(self.splits.train, self.recipe.batch_size, seed, self.views)

    def _check_ready(self) -> None:
        if not self._started or self.finished:
            raise RuntimeError("the run is over or not started: call reset()")

    def _create_cache(self) -> TeacherCache | None:
        """Return a memory of the teacher's logits if it pays."""
        train, stream = self.splits.train, self._stream
        if not self.task.follows_logits:
            return None
        if not TeacherCache.pays(train, stream, self.splits.num_classes, self.recipe.epochs, self.teacher_cache_bytes):
            return None
        return TeacherCache(self.task.engine, self.frozen_teacher, train, stream)

    def _forward(self) -> Tensor:
        stream, step = self._stream, self.step_count
        if self.sampler is None:
            self.batch = stream.batch(step)
        else:
            self.sampler.prepare(self)
            self.batch = self.sampler.batch(stream, step)
        with_features = self.method.uses_features
        teacher = self.teacher if with_features else self.frozen_teacher
        known = None if with_features or self._cache is None else self._cache.logits(self.batch)
        with self._step_randomness(self._is_stochastic):
            self.outputs = self.task.forward(self.trained_student, teacher, self.batch, with_features, known)
        self.outputs.progress, self.outputs.epoch = self.progress, step / self.steps_per_epoch
        self.outputs.step = self._draw_number
        return self.state(self.outputs)

    def forward_batch(self, parameters: dict[str, Tensor]) -> Tensor:
        """Forward the waiting batch once more through the student with other weights, leaving the run as it is.

        Args:
            parameters: of the student, by name.

        Returns:
            Logits ``(N, C)``, with the same dropout as the forward that made the state.
        """
        buffers = {name: buffer.clone() for name, buffer in self.student.named_buffers()}
        with self._step_randomness(self._is_stochastic):
            return functional_call(self.student, {**parameters, **buffers}, (self.batch.images,))

    def _step_randomness(self, needed: bool) -> contextlib.AbstractContextManager[None]:
        """Dropout draws from torch's global generator; seeded by the step it needs no saved generator state."""
        return seeded(self.seed + self._draw_number, self.device) if needed else contextlib.nullcontext()

    @property
    def _draw_number(self) -> int:
        """Of the waiting batch, from which its random draws follow."""
        return self.step_count

    def _remember(self) -> None:
        """Show the sampler, if there is one, the batch that was forwarded."""
        if self.sampler is not None and self.sampler.observes_batches:
            self.sampler.observe(self.outputs)

    def same_everywhere(self, values: Tensor) -> Tensor:
        """Return values that several processes compute alike, but for rounding, as exactly the same in all."""
        return values

    def _agree(self, metrics: dict[str, Tensor], diverged: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the means, and whether a divergence was seen, over all processes that share the run."""
        return metrics, diverged

    def _metrics(self, loss: Tensor, parts: dict[str, Tensor], outputs: InstanceOutputs) -> dict[str, Tensor]:
        metrics = {"loss": loss.detach(), **{f"loss_{name}": part.detach().mean() for name, part in parts.items()}}
        return metrics if self.sampler is None else {**metrics, **self.sampler.metrics(outputs)}

    def _measurement(self) -> Measurement:
        return Measurement(self.outputs, lambda: self.task.evaluate_probe(self.student, self.probe))


__all__ = ["DistillationRun", "Policy", "RunHook", "StepResult"]
