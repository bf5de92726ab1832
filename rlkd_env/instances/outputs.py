"""What teacher and student say about the instances of a batch; losses, states and policies read nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from rlkd_env.data.boxes import RegionBoxes, Regions
    from rlkd_env.models.taps.features import Features

_PER_INSTANCE = (
    "student_logits",
    "class_logits",
    "teacher_logits",
    "labels",
    "indices",
    "partner_labels",
    "label_share",
    "further_loss",
    "auxiliary_loss",
    "second_student_logits",
    "second_teacher_logits",
)
_PER_IMAGE = ("images", "student_features", "teacher_features", "regions", "boxes")
_OF_FIRST_VIEW = ("class_logits", "further_loss", "auxiliary_loss", "second_student_logits", "second_teacher_logits")
_SMALLEST_UNIT = 1e-6
_REGISTER = 16
_MANY_ROWS = 256


@dataclass(frozen=True, eq=False)
class InstanceOutputs:
    """Outputs for N instances and C classes from one teacher forward and one student forward.

    Everything derived is computed once, on first use. ``student_logits`` and ``task_loss`` carry gradients; whatever
    else is derived from the student does not. The cross-entropy of a mix of two images is mixed like its pixels;
    everything else that reads ``labels`` sees the class of the image with the larger share.

    Attributes:
        student_logits: ``(N, C)``, those that are compared with the teacher's.
        teacher_logits: ``(N, C)``, without gradient.
        labels: ``(N,)`` integer classes.
        progress: share of the run's schedule that is over, in ``[0, 1]``; in a captured update a tensor without
            dimensions, so methods and features use it, and ``epoch``, in arithmetic alone.
        indices: ``(N,)`` positions in the training set, or None outside a run.
        partner_labels: ``(N,)`` classes of the images that were mixed in, or None if nothing was.
        label_share: ``(N,)`` weights of ``labels`` against ``partner_labels`` in ``(0, 1]``, or None likewise.
        epoch: number of epochs that are over, with its fraction; infinite outside a run, where every warm-up is over.
        epochs: number of epochs of the whole run; infinite outside a run, which counts as a long one.
        updates: number of updates of the whole run, likewise.
        step: number of earlier updates, from which random draws for this batch are seeded. If several processes share
            a run, each of them has its own numbers.
        images: ``(N, channels, height, width)`` as both networks saw them, or None if no method asked for features.
        student_features: the student's maps and pooled feature, with gradient, or None likewise.
        teacher_features: the teacher's, without gradient, or None likewise.
        num_runs: number of runs K whose batches, all of the same size, stand here one after another.
        further_loss: ``(N,)`` the part of the task's loss that is not about classes, with gradient (a detector's loss
            of boxes), or None.
        auxiliary_loss: ``(N,)`` the weighted cross-entropy of the student's auxiliary logits, with gradient, or None.
        label_smoothing: share of the labels' probability that the task's loss spreads over all classes.
        class_logits: ``(N, C)`` those that the task's loss is of, with gradient, where the student has another head for
            what the teacher says, whose logits ``student_logits`` are then; otherwise None.
        regions: which parts of which images the instances are, or None if they are whole images.
        boxes: where detectors place the objects of these regions, or None likewise.
        second_student_logits: ``(N, C)`` for a second view of the same images, with gradient, or None if there is one
            view. The task's loss is then the sum of both views'; everything else that is derived is of the first view.
        second_teacher_logits: ``(N, C)`` likewise, without gradient.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    progress: float | Tensor = 0.0
    indices: Tensor | None = None
    partner_labels: Tensor | None = None
    label_share: Tensor | None = None
    epoch: float | Tensor = math.inf
    step: int = 0
    images: Tensor | None = None
    student_features: Features | None = None
    teacher_features: Features | None = None
    num_runs: int = 1
    further_loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    label_smoothing: float = 0.0
    epochs: float = math.inf
    updates: float = math.inf
    regions: Regions | None = None
    boxes: RegionBoxes | None = None
    class_logits: Tensor | None = None
    second_student_logits: Tensor | None = None
    second_teacher_logits: Tensor | None = None

    def second_view(self) -> InstanceOutputs:
        """Return what the networks say about the second view of the same images, by itself.

        Raises:
            ValueError: if there is one view alone.
        """
        student, teacher = self.second_student_logits, self.second_teacher_logits
        if student is None or teacher is None:
            raise ValueError("this method needs outputs for two views of every image: see Batch.second_images")
        alone: dict[str, Any] = dict.fromkeys((*_PER_IMAGE, *_OF_FIRST_VIEW))
        return replace(self, student_logits=student, teacher_logits=teacher, **alone)

    def with_student_logits(self, student_logits: Tensor) -> InstanceOutputs:
        """Return the same instances with other student logits ``(N, C)``."""
        return replace(self, student_logits=student_logits)

    def map(self, function: Callable[[Tensor], Tensor]) -> InstanceOutputs:
        """Return outputs whose tensors with a row per instance went through a function, such as one that gathers rows.

        What belongs to whole images (the images, features and regions), and the boxes, are left out.
        """
        mapped: dict[str, Any] = dict.fromkeys(_PER_IMAGE)
        for name in _PER_INSTANCE:
            values = getattr(self, name)
            mapped[name] = None if values is None else function(values)
        return replace(self, **mapped)

    def of_every_run(self) -> InstanceOutputs:
        """Return the same outputs with a row for every instance of every student, if K students share the batch.

        Their logits ``(K · B, C)`` stand one student's after another's; what there is once a batch is repeated.
        """
        size = len(self.labels)
        count = len(self.student_logits) // size
        if count == 1:
            return self
        repeated: dict[str, Any] = {}
        for name in _PER_INSTANCE:
            values = getattr(self, name)
            if values is not None and len(values) == size:
                repeated[name] = torch.cat([values] * count)
        return replace(self, **repeated)

    @staticmethod
    def join(parts: Sequence[InstanceOutputs]) -> InstanceOutputs:
        """Return the instances of several runs at the same step as one batch, with what :meth:`map` keeps of each."""
        parts = [part.map(Tensor.detach) for part in parts]
        joined: dict[str, Any] = {}
        for name in _PER_INSTANCE:
            values = [getattr(part, name) for part in parts]
            joined[name] = None if values[0] is None else torch.cat(values)
        return replace(parts[0], **joined, num_runs=sum(part.num_runs for part in parts))

    def of_runs(self, runs: Tensor) -> InstanceOutputs:
        """Return the instances of some of the runs, by their numbers ``(k,)`` from 0, with what :meth:`map` keeps."""
        chosen = self.map(lambda values: self.by_run(values)[runs].flatten(0, 1))
        return replace(chosen, num_runs=len(runs))

    @property
    def logits_of_student(self) -> list[Tensor]:
        """All logits ``(N, ...)`` of the student that a loss may compare with the teacher's."""
        edges = None if self.boxes is None else self.boxes.student_edges
        return [self.student_logits, *(one for one in (self.second_student_logits, edges) if one is not None)]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.student_logits.shape[-1]

    @property
    def are_regions(self) -> bool:
        """Whether the instances are a detector's regions rather than whole images."""
        return self.regions is not None or self.further_loss is not None

    @cached_property
    def teacher_deviation(self) -> Tensor:
        """The standard deviation, over the classes, of the teacher's logits of each instance, ``(N,)``."""
        logits = self.teacher_logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).std(dim=-1, correction=0)

    @cached_property
    def teacher_unit(self) -> Tensor:
        """The unit of relative temperatures, ``(K, 1)`` for K runs.

        It is the mean of :attr:`teacher_deviation` over the run's instances. Where several processes share a run, each
        takes the mean over its own share of the batch.
        """
        return self.by_run(self.teacher_deviation).mean(dim=1, keepdim=True).clamp(min=_SMALLEST_UNIT)

    @cached_property
    def _student_log_softmax(self) -> Tensor:
        with torch.enable_grad():  # the loss needs gradients even if a policy without them asks first
            return log_softmax(self.student_logits)

    @cached_property
    def task_loss(self) -> Tensor:
        """``(N,)`` loss of the student's own task, with gradient: cross-entropy in nats, plus what is beside it."""
        if self.class_logits is not None:
            return replace(self, student_logits=self.class_logits, class_logits=None).task_loss
        second = None if self.second_student_logits is None else self.second_view().task_loss
        others = (loss for loss in (self.further_loss, self.auxiliary_loss, second) if loss is not None)
        return sum(others, start=self._smoothed_class_loss if self.label_smoothing else self._class_loss)

    @cached_property
    def _class_loss(self) -> Tensor:
        with torch.enable_grad():
            return self._cross_entropy(self._student_log_softmax)

    @cached_property
    def _smoothed_class_loss(self) -> Tensor:
        with torch.enable_grad():
            return torch.lerp(self._class_loss, -self._student_log_softmax.mean(dim=-1), self.label_smoothing)

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
        """View values ``(N, ...)`` as ``(K, N / K, ...)``, one row for each run."""
        return values.unflatten(0, (self.num_runs, -1))

    def true_class(self, values: Tensor) -> Tensor:
        """Pick the entry of the true class from each row of ``(N, C)`` values, giving ``(N,)``."""
        return _pick(values, self.labels)

    def _cross_entropy(self, log_probabilities: Tensor) -> Tensor:
        loss = -_pick(log_probabilities, self.labels)
        if self.partner_labels is None or self.label_share is None:
            return loss
        return self.label_share * loss - (1.0 - self.label_share) * _pick(log_probabilities, self.partner_labels)


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-softmax of ``(N, C)`` logits over the classes.

    On a CPU, PyTorch computes rows that are shorter than a vector register one number at a time. Many such rows are
    therefore computed as columns, which gives the same numbers up to ten times as fast.
    """
    is_narrow = logits.dim() == 2 and logits.shape[1] < _REGISTER and len(logits) >= _MANY_ROWS
    if logits.device.type == "cpu" and is_narrow:
        return F.log_softmax(logits.t().contiguous(), dim=0).t()
    return F.log_softmax(logits, dim=-1)


def _pick(values: Tensor, classes: Tensor) -> Tensor:
    """Pick one entry a row of ``(N, C)`` values, giving ``(N,)``."""
    return values.gather(-1, classes.unsqueeze(-1)).squeeze(-1)
