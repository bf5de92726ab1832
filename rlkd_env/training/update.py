"""The update of a student: forward, losses, backward, optimisers, schedule and snapshot.

Whoever trains students composes it: a single run, stacked runs (K students whose weights are stacked) and runs that
several processes share. It waits for no device and takes no branch that depends on data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rlkd_env.data import Batch
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import Method
from rlkd_env.tasks import Task
from rlkd_env.training.collective import Collective
from rlkd_env.training.dot import DOT
from rlkd_env.training.recipe import Recipe
from rlkd_env.training.teacher_cache import StoredLogits, TeacherCache
from rlkd_env.utils.randomness import StepRandomness

_LARGEST_WEIGHT = 1e8
"""Weights beyond are taken for a divergence; those of trained networks are below 1e3."""


class Optimization:
    """The optimisers of what is trained, and the schedule of the main one; further parameters have no schedule.

    If the recipe asks for it, it keeps an average of a network's weights and running statistics over the updates, which
    :meth:`averaged` puts in their place. PyTorch counts its updates on the host, so nothing waits for the device.
    """

    def __init__(
        self,
        recipe: Recipe,
        parameters: Sequence[nn.Parameter],
        total_steps: int,
        further: Optimizer | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.optimizer = recipe.create_optimizer(parameters)
        self.further = further
        self._parameters, self._clip_grad_norm = parameters, recipe.clip_grad_norm
        self._schedule = recipe.create_schedule(self.optimizer, total_steps)
        self._network, self._average = network, None
        if network is not None and recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(recipe.ema_decay)
            self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def takes_two_losses(self) -> bool:
        """Whether :meth:`backward` is to get the distillation terms apart from the task's own loss."""
        return isinstance(self.optimizer, DOT)

    def backward(self, loss: Tensor, distillation: Tensor | None = None) -> None:
        """Compute the gradients of a loss, or of the sum of losses ``(K,)``, and of further terms apart from it."""
        for optimizer in filter(None, (self.optimizer, self.further)):
            optimizer.zero_grad()
        if distillation is not None and isinstance(self.optimizer, DOT):
            distillation.backward(torch.ones_like(distillation), retain_graph=True)
            self.optimizer.keep_distillation_gradients()
        loss.backward(torch.ones_like(loss))

    def update_parameters(self) -> None:
        """Update the parameters along their gradients, which are clipped before if that was asked for."""
        if self._clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_grad_norm)
        for optimizer in filter(None, (self.optimizer, self.further)):
            optimizer.step()

    def follow_schedule(self) -> None:
        """Set the learning rate of the next update, and take the weights into their average."""
        self._schedule.step()
        if self._average is not None and self._network is not None:
            self._average.update_parameters(self._network)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have its average weights and running statistics; without an average it stays as it is."""
        if self._average is None or self._network is None:
            yield
            return
        own, others = ([*one.parameters(), *one.buffers()] for one in (self._network, self._average.module))
        kept = [tensor.data for tensor in own]
        for tensor, other in zip(own, others, strict=True):
            tensor.data = other.data
        try:
            yield
        finally:  # the memory is the same as before, which recorded work reads
            for tensor, data in zip(own, kept, strict=True):
                tensor.data = data

    def step(self) -> None:
        """Update the parameters along their gradients, and set the learning rate of the next update."""
        self.update_parameters()
        self.follow_schedule()

    @contextlib.contextmanager
    def rate_on_device(self, rate: Tensor) -> Iterator[None]:
        """Let the main optimiser read its learning rate from a tensor without dimensions, as recorded work must."""
        groups = self.optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number

    def state_dict(self) -> dict[str, Any]:
        """Return what the next updates, and the average, depend on besides the parameters."""
        average = self._average
        averaged: dict[str, Any] = {}
        if average is not None:
            averaged = {"average": {"network": average.module.state_dict(), "updates": int(average.n_averaged)}}
        return {
            **averaged,
            "optimizer": self.optimizer.state_dict(),
            "method_optimizer": None if self.further is None else self.further.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UsageError: if the state has an average of the weights and this has none, or vice versa.
        """
        if ("average" in state) != (self._average is not None):
            raise UsageError("a state with an average of the weights needs a run with --ema-decay, and vice versa")
        if self._average is not None:
            self._average.module.load_state_dict(state["average"]["network"])
            self._average.n_averaged.fill_(state["average"]["updates"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.further is not None:
            self.further.load_state_dict(state["method_optimizer"])
        self._schedule.load_state_dict(state["schedule"])


@dataclass(frozen=True)
class TeacherForward:
    """The teacher as it was given, for methods that compare features, its leaner form, and those of its logits kept."""

    network: nn.Module
    frozen: nn.Module
    cache: TeacherCache | StoredLogits | None = None


class Update:
    """One student, or K whose weights are stacked, and everything that an update of it is made of.

    With K students, ``student`` and ``method`` hold weights ``(K, ...)``, ``stacked`` is called with batches
    ``(K · B, ...)``, and every value that is one number for a single student, such as a loss, is ``(K,)``. A policy is
    trained along with the student.

    Attributes:
        batch: The batch that was forwarded last and waits for its temperatures.
        outputs: What the networks say about it.
        state: Its instances' states ``(N, d)``.
    """

    batch: Batch
    outputs: InstanceOutputs
    state: Tensor

    def __init__(
        self,
        task: Task,
        teacher: TeacherForward,
        student: nn.Module,
        method: Method,
        recipe: Recipe,
        total_steps: int,
        steps_per_epoch: int,
        seed: int,
        observe: Callable[[InstanceOutputs], Tensor],
        policy: nn.Module | None = None,
        stacked: nn.Module | None = None,
        num_runs: int | None = None,
        collective: Collective | None = None,
    ) -> None:
        self.task = task
        self.teacher = teacher
        self.student = student
        self.method = method
        self.policy = policy
        self.seed = seed
        self.num_runs = num_runs
        self._observe = observe
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._collective = collective or Collective()
        self._device = next(student.parameters()).device
        self._randomness = StepRandomness(self._device, looks_on=task.engine.captured)
        self._called_student = self._collective.parallel(student) if stacked is None else stacked
        self._called_method = self._collective.parallel(method)
        method.gather = self._collective.gather
        method.num_runs = num_runs or 1
        further = method.create_optimizer()
        trained = _trained(student, method, policy, further)
        self.optimization = Optimization(recipe, trained, total_steps, further, student)

    @property
    def why_plain(self) -> str | None:
        """Why updates are computed operation by operation; None if they are recorded and replayed."""
        return "the device has no CUDA graphs, or they are switched off"

    def forward(self, batch: Batch, step: int) -> InstanceOutputs:
        """Forward N images, or the batches of K runs one after another; they then wait for their temperatures."""
        draw = self._collective.draw_number(step)
        progress, epoch = step / self._total_steps, step / self._steps_per_epoch
        batch = self.with_known_logits(batch)
        with self._randomness.seeded(self.seed + draw):
            outputs = self._compute(batch, progress, epoch)
        self.batch, self.outputs = batch, replace(outputs, step=draw)
        self.state = self._observe(self.outputs)
        return self.outputs

    def with_known_logits(self, batch: Batch) -> Batch:
        """Return a batch with the teacher's logits on it if they are kept; what is recorded reads them from there."""
        cache = self.teacher.cache
        if cache is None or self.method.uses_features or batch.teacher_logits is not None:
            return batch
        return replace(batch, teacher_logits=cache.logits(batch), second_teacher_logits=cache.second_logits(batch))

    def _compute(self, batch: Batch, progress: float | Tensor, epoch: float | Tensor) -> InstanceOutputs:
        """Forward a batch through both networks."""
        with_features, teacher = self.method.uses_features, self.teacher
        network = teacher.network if with_features else teacher.frozen
        known = teacher.cache.features(batch) if with_features and teacher.cache is not None else None
        outputs = self.task.forward(self._called_student, network, batch, with_features, known).of_every_run()
        whole: dict[str, Any] = {"epochs": self._total_steps / self._steps_per_epoch, "updates": self._total_steps}
        return replace(outputs, progress=progress, epoch=epoch, num_runs=self.num_runs or 1, **whole)

    def stay_plain(self, reason: str) -> None:
        """Compute operation by operation from now on, for a reason that :attr:`why_plain` then gives."""

    def kept_outputs(self) -> InstanceOutputs:
        """Return what the networks say about the waiting batch, to be read after the update too."""
        return self.outputs

    def forward_again(self, parameters: dict[str, Tensor]) -> Tensor:
        """Return the waiting batch's logits ``(N, C)`` with other weights, and change nothing.

        Under :meth:`same_draws` dropout is the same as well. Inside a transform of ``torch.func`` nobody can look at a
        generator's state, so that context goes around the transform.
        """
        buffers = {name: buffer.clone() for name, buffer in self.student.named_buffers()}
        return self.task.forward_with(self.student, {**parameters, **buffers}, self.batch.images)

    def same_draws(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which forwards draw the random numbers that the waiting batch's forward has drawn."""
        return self._randomness.seeded(self.seed + self.outputs.step)

    def apply(self, temperature: Temperature) -> dict[str, Tensor]:
        """Update the student with temperatures ``(N,)``; return mean ``loss`` and its weighted parts ``loss_...``."""
        with self._randomness.seeded(self.seed + self.outputs.step):
            metrics = self._minimise(self.outputs, temperature)
        self.optimization.follow_schedule()
        return metrics

    def _minimise(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Make a step along the gradient of the losses."""
        parts = self._called_method(outputs, temperature)
        loss = self._mean(torch.stack(list(parts.values())).sum(dim=0))
        others = [part for name, part in parts.items() if name != "task"]
        if self.optimization.takes_two_losses and others:
            self.optimization.backward(self._mean(parts["task"]), self._mean(torch.stack(others).sum(dim=0)))
        else:
            self.optimization.backward(loss)
        if self.policy is not None:
            self._collective.average_gradients(self.policy.parameters())
        self.optimization.update_parameters()
        with torch.no_grad():
            self.method.after_update(outputs)
        return {"loss": loss.detach(), **{f"loss_{name}": self._mean(part.detach()) for name, part in parts.items()}}

    def is_finite(self) -> Tensor:
        """Return whether all of the student's logits on the waiting batch are finite."""
        return self._is_finite(self.outputs)

    def _is_finite(self, outputs: InstanceOutputs) -> Tensor:
        return self._by_run(outputs.student_logits.detach()).isfinite().flatten(-2).all(dim=-1)

    @torch.no_grad()
    def has_sound_weights(self) -> Tensor:
        """Return whether all of the student's weights are finite and none is absurdly large, whatever the losses."""
        rows = [one.reshape(self.num_runs or 1, -1) for one in self.student.parameters() if one.numel()]
        are_sound = torch.stack([row.abs().amax(dim=1) for row in rows]).amax(dim=0) <= _LARGEST_WEIGHT
        return are_sound if self.num_runs is not None else are_sound.squeeze(0)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later updates depend on; the tensors are those in use."""
        return {
            "student": self.student.state_dict(),
            "method": self.method.state_dict(),
            "policy": {} if self.policy is None else self.policy.state_dict(),
            **self.optimization.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the waiting batch must be forwarded again under :meth:`same_statistics`.

        Raises:
            UsageError: if the state has a policy that learns along and the update has none or another, or vice versa.
        """
        kept = state.get("policy", {})
        if (set() if self.policy is None else self.policy.state_dict().keys()) != kept.keys():
            raise UsageError("a run's state with a policy that learns along needs a run with the same one")
        self.student.load_state_dict(state["student"])
        self.method.load_state_dict(state["method"])
        if self.policy is not None:
            self.policy.load_state_dict(kept)
        self.optimization.load_state_dict(state)

    @contextlib.contextmanager
    def same_statistics(self) -> Iterator[None]:
        """Keep the student's running statistics through forwards of a batch that has moved them before."""
        kept = {name: buffer.clone() for name, buffer in self.student.named_buffers()}
        yield
        # They are swapped back, not copied into: autograd would take a copy for a change of what the waiting backward
        # has saved.
        for name, buffer in self.student.named_buffers():
            if name in kept:
                buffer.data = kept[name]

    def _mean(self, values: Tensor) -> Tensor:
        return self._by_run(values).mean(dim=-1)

    def _by_run(self, values: Tensor) -> Tensor:
        """View ``(K · B, ...)`` as ``(K, B, ...)`` if students are stacked."""
        return values if self.num_runs is None else values.unflatten(0, (self.num_runs, -1))


def _trained(
    student: nn.Module, method: nn.Module, policy: nn.Module | None, further: Optimizer | None
) -> list[nn.Parameter]:
    """Return all parameters but those that a further optimiser trains."""
    groups = [] if further is None else further.param_groups
    own = {id(parameter) for group in groups for parameter in group["params"]}
    parameters = [*student.parameters()]
    parameters += [parameter for parameter in method.parameters() if id(parameter) not in own]
    of_policy: Iterable[nn.Parameter] = [] if policy is None else policy.parameters()
    return parameters + [parameter for parameter in of_policy if parameter.requires_grad]
