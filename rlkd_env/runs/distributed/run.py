"""A run that several processes share: each holds the student and its share of every batch; the first one leads."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import ImageSet
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.runs.distributed.collective import ProcessCollective
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.loop import advance, check_temperatures, end_of_advance
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Evaluation


class _Command(IntEnum):
    """What the first process tells the others to do, the first number of its message."""

    RESET, STEP, ADVANCE, LOAD, OBSERVE, EVALUATE, STOP = range(7)


@dataclass(eq=False, kw_only=True)
class DistributedRun(DistillationRun):
    """One run over W processes, which equals the run of a single process with the same batch of N instances.

    The first process uses it like any other run: its temperatures and states are those of the whole batch, ``(N,)`` and
    ``(N, d)``. The other processes are in :meth:`follow` and do what the first one does. Gradients are averaged by
    ``DistributedDataParallel`` while they are computed, so the students of all processes stay equal. Rewards, losses
    and divergence are those of the whole batch; the ``outputs`` and ``temperature`` of a step, and so what hooks see,
    are the first process's share. In :meth:`advance` every process asks its own copy of the policy.

    Batch norms see the whole batch. Dropout, CRD's negatives and the temperatures of random rules are drawn anew in
    every process. Methods that compare the instances of a batch (PKT, SP) compare those of a share, so their weights,
    which depend on the batch size, depend on the size of the share.

    Hooks may ask the run for something that needs the other processes only in ``on_epoch_end``: during an advance the
    others are already making the next update.
    """

    processes: Processes

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processes.check_batch(self.batch_size)
        self.collective = self._states = ProcessCollective(self.processes, self.device)

    def reset(self, seed: int) -> Tensor:
        """Start over with a fresh student and return the first batch's state ``(N, d)``."""
        self._tell(_Command.RESET, seed)
        return super().reset(seed)

    def step(self, temperature: Temperature, is_rewarded: bool = True) -> StepResult:
        """Update the student with these temperatures ``(N,)`` and forward the next batch.

        For ``is_rewarded`` see :meth:`DistillationRun.step`.

        Raises:
            RuntimeError: if the run was not started or its schedule is over.
            ValueError: if there are not N temperatures, or they bring gradients or a factor.
        """
        self._ready()
        check_temperatures(temperature, self.batch_size)
        if temperature.factor is not None or temperature.student.requires_grad or temperature.teacher.requires_grad:
            raise ValueError("temperatures with gradients or a factor of their own are for a policy, in advance()")
        both = torch.stack([temperature.teacher, temperature.student]).flatten()
        self._tell(_Command.STEP, float(is_rewarded), *both.cpu().tolist())
        return self._step_share(both, is_rewarded)

    def advance(self, policy: Policy | None = None, steps: int | None = None) -> StepResult:
        """Step with a policy on the device, a copy of it in every process; see :meth:`DistillationRun.advance`."""
        end = end_of_advance(self, steps)
        self._ready()
        chosen = self._policy_or_own(policy)
        while True:  # epoch by epoch, at whose ends the others listen
            to_epoch_end = self.steps_per_epoch - self.step_count % self.steps_per_epoch
            count = min(to_epoch_end, end - self.step_count)
            self._tell(_Command.ADVANCE, count)
            self.processes.tell_object(None if chosen is self.policy else _on_host(chosen))  # all have the run's own
            result = self._advance_share(chosen, count)
            if self.step_count >= end or bool(result.diverged):
                return result

    def observe(self) -> Tensor:
        """Return the state of the waiting batch ``(N, d)``."""
        self._tell(_Command.OBSERVE)
        return self._observe_whole()

    def evaluate_validation(self) -> Evaluation:
        """Measure the student on the validation images, a part of them in every process."""
        self._tell(_Command.EVALUATE)
        return super().evaluate_validation()

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from :meth:`state_dict`, whatever number of processes it is from; returns the state ``(N, d)``."""
        self._tell(_Command.LOAD)
        self.processes.tell_state(state)
        return super().load_state_dict(state)

    def fork(self) -> DistillationRun:
        """Refuse: the other processes hold one run.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a run that several processes share cannot be forked")

    def sibling(self, train: ImageSet | None = None) -> DistillationRun:  # noqa: ARG002
        """Refuse, likewise.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a run that several processes share cannot have siblings")

    def stop(self) -> None:
        """End the others' :meth:`follow`; the run stays as it is."""
        self._tell(_Command.STOP)

    def follow(self) -> None:
        """Do what the first process does until it stops; for all processes but the first."""
        while True:
            command, *values = self._hear()
            if command == _Command.STOP:
                return
            self._obey(_Command(int(command)), values)

    def _obey(self, command: _Command, values: list[float]) -> None:
        if command == _Command.RESET:
            super().reset(int(values[0]))
        elif command == _Command.STEP:
            self._step_share(torch.tensor(values[1:], device=self.device), bool(values[0]))
        elif command == _Command.ADVANCE:
            policy = self._policy_or_own(self.processes.tell_object())
            self._advance_share(policy.to(self.device) if isinstance(policy, nn.Module) else policy, int(values[0]))
        elif command == _Command.LOAD:
            super().load_state_dict(self.processes.tell_state())
        elif command == _Command.OBSERVE:
            self._observe_whole()
        elif command == _Command.EVALUATE:
            super().evaluate_validation()

    def _tell(self, command: _Command, *values: float) -> None:
        message = torch.zeros(2 + 2 * self.batch_size, dtype=torch.float64)
        message[: 1 + len(values)] = torch.tensor([command, *values], dtype=torch.float64)
        self.processes.tell(message)

    def _hear(self) -> list[float]:
        return self.processes.tell(torch.zeros(2 + 2 * self.batch_size, dtype=torch.float64)).tolist()

    def _step_share(self, both: Tensor, is_rewarded: bool) -> StepResult:
        """Step with this process's share of the temperatures ``(2 N,)``."""
        teacher, student = self.collective.share.of(both.view(2, -1).float(), dim=1)
        return super().step(Temperature(teacher, student), is_rewarded)

    def _observe_whole(self) -> Tensor:
        """Return the state ``(N, d)`` on the first process, also for a hook in the middle of an advance."""
        before, self._states.gathers_states = self._states.gathers_states, True
        state = super().observe()
        self._states.gathers_states = before
        return state

    def _advance_share(self, policy: Policy, count: int) -> StepResult:
        """Make updates of one epoch at most; the first process needs no states for them."""
        self._states.gathers_states = False
        result = advance(self, partial(super().step, is_rewarded=False), policy, self.step_count + count)
        self._states.gathers_states = True
        return result


def _on_host(policy: Policy) -> Policy:
    return copy.deepcopy(policy).cpu() if isinstance(policy, nn.Module) else policy
