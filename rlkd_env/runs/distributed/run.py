"""A run that several processes share: each holds the student and its share of every batch; the first one leads."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlkd_env.data import BatchStream, ImageSet, Share
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.models.taps.features import Taps, set_taps
from rlkd_env.runs.distributed.batch_norm import share_norms
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.reward import Measurement
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Evaluation


class _Command(IntEnum):
    """What the first process has the others do, the first number of its message."""

    RESET, STEP, ADVANCE, LOAD, OBSERVE, EVALUATE, STOP = range(7)


@dataclass(eq=False, kw_only=True)
class DistributedRun(DistillationRun):
    """One run over W processes, which equals the run of a single one with the same batch of N instances.

    The first process uses it as any other run: its temperatures and states are those of the whole batch, ``(N,)`` and
    ``(N, d)``. What it does, the others do too, who are in :meth:`follow`. Gradients are averaged by
    ``DistributedDataParallel`` while they are computed, so the students of all processes stay equal. Rewards, losses
    and the divergence are those of the whole batch; a step's ``outputs`` and ``temperature``, and so what hooks see,
    are the first process's share. In :meth:`advance` every process asks its own copy of the policy.

    Batch norms see the whole batch. Dropout, CRD's negatives and the temperatures of random rules are drawn anew in
    every process. Methods that compare the instances of a batch (PKT, SP) compare those of a share, so that their
    weights, which go with a size of batch, go with that of the share.

    Hooks may ask the run for something that needs the others only in ``on_epoch_end``: during an advance the others
    are already making the next update.

    Args:
        processes: that share the run.

    Raises:
        UsageError: if the batch cannot be shared equally.
    """

    processes: Processes

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processes.check_batch(self.batch_size)
        self._share = Share(self.processes.rank, self.processes.count)
        self._parts = {id(images): self._part_of(images) for images in (self.probe, self.splits.validation)}
        self._is_observed = False

    @property
    def num_processes(self) -> int:
        """Number of processes that share the run, W."""
        return self.processes.count

    def reset(self, seed: int) -> Tensor:
        """Start over with a fresh student and return the first batch's state ``(N, d)``."""
        self._tell(_Command.RESET, seed)
        self._is_observed = True
        return super().reset(seed)

    def step(self, temperature: Temperature) -> StepResult:
        """Update the student with these temperatures ``(N,)`` and forward the next batch.

        Raises:
            RuntimeError: if the run was not started or its schedule is over.
            ValueError: if there are not N temperatures, or they bring gradients or a factor.
        """
        self._check_ready()
        if temperature.student.shape != (self.batch_size,) or temperature.teacher.shape != (self.batch_size,):
            raise ValueError(f"expected {self.batch_size} temperatures each for teacher and student")
        if temperature.factor is not None or temperature.student.requires_grad or temperature.teacher.requires_grad:
            raise ValueError("temperatures with gradients or a factor of their own are for a policy, in advance()")
        both = torch.stack([temperature.teacher, temperature.student]).flatten()
        self._tell(_Command.STEP, *both.cpu().tolist())
        return self._step_observed(both)

    def advance(self, policy: Policy | None = None, steps: int | None = None) -> StepResult:
        """Step with a policy on the device, a copy of it in every process; see :meth:`DistillationRun.advance`."""
        if policy is None and self.policy is None:
            raise ValueError("the run has no policy of its own: give one")
        is_own = policy is None or policy is self.policy  # every process has that one
        if steps is not None and steps < 1:
            raise ValueError(f"the number of steps must be at least 1, not {steps}")
        self._check_ready()
        end = self.total_steps if steps is None else min(self.step_count + steps, self.total_steps)
        while True:  # by the epoch, so that at its end the others listen
            to_epoch_end = self.steps_per_epoch - self.step_count % self.steps_per_epoch
            count = min(to_epoch_end, end - self.step_count)
            self._tell(_Command.ADVANCE, count)
            self.processes.tell_object(None if is_own else _on_host(policy))
            self._is_observed = False
            result = self._advance(policy, count)
            if self.step_count >= end or bool(result.diverged):
                return result

    def observe(self) -> Tensor:
        """Return the state of the waiting batch ``(N, d)``."""
        self._tell(_Command.OBSERVE)
        return self._gather_state(super().observe())

    def evaluate_validation(self) -> Evaluation:
        """Measure the student on the validation images, a part of them in every process."""
        self._tell(_Command.EVALUATE)
        return self._evaluate(self.splits.validation)

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from :meth:`state_dict`, whatever number of processes it is from; returns the state ``(N, d)``."""
        self._tell(_Command.LOAD)
        self.processes.tell_state(state)
        self._is_observed = True
        return super().load_state_dict(state)

    def fork(self) -> DistillationRun:
        """Not to be had: the other processes hold one run."""
        raise RuntimeError("a run that several processes share cannot be forked")

    def sibling(self, train: ImageSet | None = None) -> DistillationRun:  # noqa: ARG002
        """Not to be had, likewise."""
        raise RuntimeError("a run that several processes share cannot have siblings")

    def stop(self) -> None:
        """End the others' :meth:`follow`; the run stays as it is."""
        self._tell(_Command.STOP)

    def follow(self) -> None:
        """Do what the first process does, until it stops; for all processes but the first."""
        while True:
            command, *values = self._hear()
            if command == _Command.STOP:
                return
            self._obey(_Command(int(command)), values)

    def _obey(self, command: _Command, values: list[float]) -> None:
        self._is_observed = command != _Command.ADVANCE
        if command == _Command.RESET:
            super().reset(int(values[0]))
        elif command == _Command.STEP:
            self._step_observed(torch.tensor(values, device=self.device))
        elif command == _Command.ADVANCE:
            policy = self.processes.tell_object()
            self._advance(policy.to(self.device) if isinstance(policy, nn.Module) else policy, int(values[0]))
        elif command == _Command.LOAD:
            super().load_state_dict(self.processes.tell_state())
        elif command == _Command.OBSERVE:
            self._gather_state(super().observe())
        elif command == _Command.EVALUATE:
            self._evaluate(self.splits.validation)

    def _tell(self, command: _Command, *values: float) -> None:
        message = torch.zeros(1 + 2 * self.batch_size, dtype=torch.float64)
        message[: 1 + len(values)] = torch.tensor([command, *values], dtype=torch.float64)
        self.processes.tell(message)

    def _hear(self) -> list[float]:
        return self.processes.tell(torch.zeros(1 + 2 * self.batch_size, dtype=torch.float64)).tolist()

    def _step_observed(self, both: Tensor) -> StepResult:
        """Step with the share of the temperatures ``(2 N,)`` and hand the states to the first process."""
        teacher, student = self._share.of(both.view(2, -1).float(), dim=1)
        self._is_observed = True
        return super().step(Temperature(teacher, student))

    def _advance(self, policy: Policy | None, count: int) -> StepResult:
        policy = policy or self.policy
        assert policy is not None
        for _ in range(count):
            with torch.set_grad_enabled(getattr(policy, "has_gradient", False)):
                temperature = policy(self.outputs)
            result = super().step(temperature)
        return result

    def _gather_state(self, state: Tensor) -> Tensor:
        whole = self.processes.gather_to_first(state)
        return state if whole is None else whole.to(state.device)

    def _create_stream(self, seed: int) -> BatchStream:
        return BatchStream(self.splits.train, self.recipe.batch_size, seed, self.views, self._share)

    def _create_modules(self, seed: int) -> None:
        super()._create_modules(seed)
        for module in (self.student, self.method):
            share_norms(module, self.device)
        self.method.gather = self.processes.gather
        self.trained_student = _parallel(self.student)
        self.trained_method = _parallel(self.method)
        self.optimizer.register_step_pre_hook(lambda *_: self._average_policy())

    def _average_policy(self) -> None:
        """Average the gradients of a policy that learns along, which is small."""
        for parameter in [] if self.policy is None else self.policy.parameters():
            if parameter.grad is not None:
                parameter.grad = self.processes.mean(parameter.grad)

    def _forward(self) -> Tensor:
        state = super()._forward()
        return self._gather_state(state) if self._is_observed else state

    def _remember(self) -> None:
        if self.sampler is not None and self.sampler.observes_batches:
            self.sampler.observe(self._whole(self.outputs))

    def _whole(self, outputs: InstanceOutputs) -> InstanceOutputs:
        """Return the outputs of the whole batch, without gradients and features."""
        gather = self.processes.gather
        return replace(
            InstanceOutputs(
                gather(outputs.student_logits), gather(outputs.teacher_logits), gather(outputs.labels), outputs.progress
            ),
            indices=None if outputs.indices is None else gather(outputs.indices),
            partner_labels=None if outputs.partner_labels is None else gather(outputs.partner_labels),
            label_share=None if outputs.label_share is None else gather(outputs.label_share),
        )

    @property
    def _draw_number(self) -> int:
        return self.step_count * self.num_processes + self.processes.rank

    def same_everywhere(self, values: Tensor) -> Tensor:
        """Return the first process's values, of which the others have nearly the same."""
        self.processes.take_from_first(values)
        return values

    def _agree(self, metrics: dict[str, Tensor], diverged: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        values = torch.stack([diverged.float(), *(value.float() for value in metrics.values())])
        means = self.processes.mean(values)
        return dict(zip(metrics, means[1:], strict=True)), means[0] > 0

    def _measurement(self) -> Measurement:
        return Measurement(self.outputs, lambda: self._evaluate(self.probe), self.processes.mean)

    def _part_of(self, images: ImageSet) -> ImageSet:
        positions = torch.arange(len(images)).tensor_split(self.processes.count)[self.processes.rank]
        return images.subset(positions)

    def _evaluate(self, images: ImageSet) -> Evaluation:
        """Evaluate this process's part of a set and return the whole set's figures."""
        part = self._parts[id(images)]
        figures = torch.zeros(3, device=self.device)
        if len(part):
            local = self.task.evaluate(self.student, part)
            figures = torch.stack([local.accuracy, local.loss, local.confidence]) * (len(part) / len(images))
        return Evaluation(*self.processes.total(figures))


def _parallel(module: nn.Module) -> nn.Module:
    """Return what averages the module's gradients over the processes, or the module itself if it has none."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    with warnings.catch_warnings():  # of newer names for this argument, which older versions do not know
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(module, broadcast_buffers=False)
    taps = getattr(module, "taps", None)
    if not isinstance(taps, Taps):
        return parallel
    return set_taps(
        parallel,
        Taps(
            tuple(f"module.{name}" for name in taps.stages),
            tuple(f"module.{name}" for name in taps.preactivations),
            f"module.{taps.classifier}",
        ),
    )


def _on_host(policy: Policy | None) -> Policy | None:
    return copy.deepcopy(policy).cpu() if isinstance(policy, nn.Module) else policy
