"""What teacher and student say about the instances of a batch: the one thing that losses, states and policies read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from rlkd_env.data.boxes import Regions
    from rlkd_env.models.taps.features import Features

_REGISTER = 16
_MANY_ROWS = 256


@dataclass
class InstanceOutputs:
    """Outputs for N instances and C classes from one teacher forward and one student forward.

    Everything derived is computed once, on first use. Properties of the student named ``..._probabilities`` and
    below carry no gradient; ``student_logits`` and ``task_loss`` do. Cross-entropies of a mix of two images are mixed
    like its pixels; whatever else reads ``labels`` sees the class of the image with the larger share.

    Attributes:
        student_logits: ``(N, C)``.
        teacher_logits: ``(N, C)``, no gradient.
        labels: ``(N,)`` integer classes.
        progress: share of the run that is over, in ``[0, 1]``.
        indices: ``(N,)`` position of every instance in the training set, or None outside a run.
        partner_labels: ``(N,)`` classes of the images that were mixed in, or None where nothing was.
        label_share: ``(N,)`` weight of ``labels`` against ``partner_labels`` in ``(0, 1]``, or None likewise.
        epoch: epochs that are over, with fraction; infinite outside a run, where warm-ups count as over.
        step: updates that were made before; what is drawn at random for the batch follows from it and a seed. Where
            processes share a run, each counts numbers of its own.
        images: ``(N, channels, height, width)`` as both networks saw them, or None where no method asked for features.
        student_features: maps and pooled feature of the student, with gradient, or None likewise.
        teacher_features: of the teacher, no gradient, or None likewise.
        num_runs: runs K whose batches, equally many instances each, stand here one after the other.
        further_loss: ``(N,)`` of what the student's task asks for besides the classes, with gradient, or None: of a
            detector, where boxes are.
        regions: which parts of which images the instances are, or None where they are whole images.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    progress: float = 0.0
    indices: Tensor | None = None
    partner_labels: Tensor | None = None
    label_share: Tensor | None = None
    epoch: float = math.inf
    step: int = 0
    images: Tensor | None = None
    student_features: Features | None = None
    teacher_features: Features | None = None
    num_runs: int = 1
    further_loss: Tensor | None = None
    regions: Regions | None = None

    def with_student_logits(self, student_logits: Tensor) -> InstanceOutputs:
        """Return the same instances with other student logits ``(N, C)``."""
        return replace(self, student_logits=student_logits)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.student_logits.shape[-1]

    @cached_property
    def _student_log_softmax(self) -> Tensor:
        with torch.enable_grad():  # whoever asks first, such as a policy without gradients, the loss needs them
            return log_softmax(self.student_logits)

    @cached_property
    def task_loss(self) -> Tensor:
        """``(N,)`` loss of the student's own task, with gradient: cross-entropy in nats, and what else it asks for."""
        return self._class_loss if self.further_loss is None else self._class_loss + self.further_loss

    @cached_property
    def _class_loss(self) -> Tensor:
        with torch.enable_grad():
            return self._cross_entropy(self._student_log_softmax)

    @cached_property
    def student_log_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return self._student_log_softmax.detach()

    @cached_property
    def teacher_log_probabilities(self) -> Tensor:
        """``(N, C)`` at temperature 1."""
        return log_softmax(self.teacher_logits)

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
        return self._class_loss.detach()

    @cached_property
    def teacher_cross_entropy(self) -> Tensor:
        """``(N,)`` in nats."""
        return self._cross_entropy(self.teacher_log_probabilities)

    @cached_property
    def is_mixed(self) -> Tensor:
        """``(N,)`` true where an instance is a mix of two images."""
        if self.label_share is None:
            return torch.zeros_like(self.labels, dtype=torch.bool)
        return self.label_share < 1.0

    def by_run(self, values: Tensor) -> Tensor:
        """View ``(N, ...)`` values as ``(K, N / K, ...)``, a row of instances for every run."""
        return values.unflatten(0, (self.num_runs, -1))

    def true_class(self, values: Tensor) -> Tensor:
        """Pick the true class' entry of ``(N, C)`` values, giving ``(N,)``."""
        return _pick(values, self.labels)

    def _cross_entropy(self, log_probabilities: Tensor) -> Tensor:
        loss = -_pick(log_probabilities, self.labels)
        if self.partner_labels is None or self.label_share is None:
            return loss
        return self.label_share * loss - (1.0 - self.label_share) * _pick(log_probabilities, self.partner_labels)


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-softmax of ``(N, C)`` logits over the classes.

    On a CPU PyTorch computes rows of fewer numbers than a vector register holds one number at a time. Many such rows
    are therefore computed as columns: the same numbers, up to ten times as fast.
    """
    is_narrow = logits.dim() == 2 and logits.shape[1] < _REGISTER and len(logits) >= _MANY_ROWS
    if logits.device.type == "cpu" and is_narrow:
        return F.log_softmax(logits.t().contiguous(), dim=0).t()
    return F.log_softmax(logits, dim=-1)


def _pick(values: Tensor, classes: Tensor) -> Tensor:
    """Pick one entry a row of ``(N, C)`` values, giving ``(N,)``."""
    return values.gather(-1, classes.unsqueeze(-1)).squeeze(-1)
