"""What rules and learned policies have in common: modules that choose temperatures, in a run or in any KD code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature


class PolicyModule(nn.Module, ABC):
    """Maps the outputs of a batch to the temperatures of its instances, on the outputs' device."""

    @abstractmethod
    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a :class:`~rlkd_env.runs.run.DistillationRun`."""

    def choose(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        progress: float = 0.0,
        epochs: float = math.inf,
        updates: float = math.inf,
    ) -> Temperature:
        """Choose the temperatures of a batch in any KD code, also those that differ between teacher and student.

        Where they are around a rule that reads the student's logits, its gradient by them is kept.

        Args:
            student_logits: ``(N, C)``.
            teacher_logits: ``(N, C)``.
            labels: ``(N,)`` integer classes.
            progress: share of the training that is over, in ``[0, 1]``.
            epochs: number of epochs of the whole training; annealing starts at lower temperatures where they are few.
            updates: number of updates of the whole training, likewise; few are those below twelve for each class.

        Returns:
            The temperatures ``teacher`` and ``student``, each ``(N,)``; its ``scale`` multiplies the KL loss ``(N,)``
            as plain KD multiplies it by T².
        """
        outputs = InstanceOutputs(student_logits, teacher_logits, labels, progress, epochs=epochs, updates=updates)
        chosen: Temperature = self(outputs)
        return chosen

    @torch.no_grad()
    def temperatures(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        progress: float = 0.0,
        epochs: float = math.inf,
        updates: float = math.inf,
    ) -> Tensor:
        """Choose the temperatures of a batch in any KD code, where they are the same for teacher and student.

        The arguments are those of :meth:`choose`; the result is ``(N,)``.
        """
        chosen = self.choose(student_logits, teacher_logits, labels, progress, epochs, updates)
        if not chosen.is_shared:
            raise ValueError("this policy's temperatures differ between teacher and student: use choose()")
        return chosen.student
