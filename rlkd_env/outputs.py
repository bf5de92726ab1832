"""What teacher and student say about the instances of a batch: the one thing that losses, states and policies read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor


@dataclass
class InstanceOutputs:
    """Outputs for N instances and C classes from one teacher forward and one student forward.

    Everything derived is computed once, on first use. Properties of the student named ``..._probabilities`` and
    below carry no gradient; ``student_logits`` and ``task_loss`` do.

    Attributes:
        student_logits: ``(N, C)``.
        teacher_logits: ``(N, C)``, no gradient.
        labels: ``(N,)`` integer classes.
        progress: share of the run that is over, in ``[0, 1]``.
        indices: ``(N,)`` position of every instance in the training set, or None outside a run.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    progress: float = 0.0
    indices: Tensor | None = None

    def with_student_logits(self, student_logits: Tensor) -> InstanceOutputs:
        """Return the same instances with other student logits ``(N, C)``."""
        return replace(self, student_logits=student_logits)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.student_logits.shape[-1]

    @cached_property
    def _student_log_softmax(self) -> Tensor:
        return F.log_softmax(self.student_logits, dim=-1)

    @cached_property
    def task_loss(self) -> Tensor:
        """``(N,)`` cross-entropy of the student in nats, with gradient."""
        return -self._student_log_softmax.gather(-1, self.labels.unsqueeze(-1)).squeeze(-1)

    @cached_property
    def student_log_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return self._student_log_softmax.detach()

    @cached_property
    def teacher_log_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return F.log_softmax(self.teacher_logits, dim=-1)

    @cached_property
    def student_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return self.student_log_probabilities.exp()

    @cached_property
    def teacher_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return self.teacher_log_probabilities.exp()

    @cached_property
    def student_cross_entropy(self) -> Tensor:
        """``(N,)`` in nats, without gradient."""
        return self.task_loss.detach()

    @cached_property
    def teacher_cross_entropy(self) -> Tensor:
        """``(N,)`` in nats."""
        return -self.true_class(self.teacher_log_probabilities)

    def true_class(self, values: Tensor) -> Tensor:
        """Pick the true class' entry of ``(N, C)`` values, giving ``(N,)``."""
        return values.gather(-1, self.labels.unsqueeze(-1)).squeeze(-1)
