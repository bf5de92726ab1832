"""What all learned policies have in common: a frozen network, two files, and temperatures in any KD code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from agents.learned.files import read_policy, write_policy
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature

if TYPE_CHECKING:
    from typing_extensions import Self


class NetworkPolicy(nn.Module, ABC):
    """A policy that acts, and does not learn; ``kind`` is the word by which its description tells it from others."""

    kind: ClassVar[str]

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = nn.Sequential(*layers)
        self.requires_grad_(False)
        self.eval()

    @abstractmethod
    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a :class:`~rlkd_env.runs.run.DistillationRun`."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return what the policy is besides its network, as plain values."""

    @classmethod
    @abstractmethod
    def from_description(cls, layers: Sequence[nn.Module], description: dict[str, Any]) -> Self:
        """Make the policy that a description tells; a KeyError or TypeError means that it is damaged."""

    def choose(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0
    ) -> Temperature:
        """Choose the temperatures of a batch in any KD code, also those that differ between teacher and student.

        Where they are around a rule that reads the student's logits, its gradient by them is kept.

        Args:
            student_logits: ``(N, C)``.
            teacher_logits: ``(N, C)``.
            labels: ``(N,)`` integer classes.
            progress: share of the training that is over, in ``[0, 1]``.

        Returns:
            The temperatures ``teacher`` and ``student``, each ``(N,)``; its ``scale`` multiplies the KL loss ``(N,)``
            as plain KD multiplies it by T².
        """
        chosen: Temperature = self(InstanceOutputs(student_logits, teacher_logits, labels, progress))
        return chosen

    @torch.no_grad()
    def temperatures(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0
    ) -> Tensor:
        """Choose the temperatures of a batch in any KD code, where they are the same for teacher and student.

        The arguments are those of :meth:`choose`; the result is ``(N,)``.
        """
        chosen = self.choose(student_logits, teacher_logits, labels, progress)
        if not chosen.is_shared:
            raise ValueError("this policy's temperatures differ between teacher and student: use choose()")
        return chosen.student

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder, each atomically."""
        write_policy(Path(folder), self.network, {"kind": self.kind, **self.description()})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved policy from its folder, or named by one of its two files; nothing is unpickled."""
        return read_policy(path, cls.kind, cls.from_description)
