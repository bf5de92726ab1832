"""Named features of an instance: the numbers that an agent may see of it.

To add one, write a function from :class:`InstanceOutputs` to values ``(N,)`` under a ``@feature`` line: in this module
it gets a name in :data:`FEATURES`; from any other module it is named ``package.module:function``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.utils.registry import Registry, instance_of

if TYPE_CHECKING:
    from rlkd_env.data.boxes import Regions

NO_REGIONS = (
    "the features objectness and overlap are those of region proposals: choose a data set with boxes, or other features"
)

Compute = Callable[[InstanceOutputs], Tensor]


@dataclass(frozen=True)
class Feature:
    """A number per instance and its bounds, to which values are clipped; some are of detectors' regions alone."""

    compute: Compute
    low: float
    high: float
    needs_regions: bool = False

    @property
    def __wrapped__(self) -> Compute:
        return self.compute


def feature(low: float, high: float, needs_regions: bool = False) -> Callable[[Compute], Feature]:
    """Return a decorator that makes a :class:`Feature` with values in ``[low, high]`` of a function."""
    return lambda compute: Feature(compute, low, high, needs_regions)


def _regions(outputs: InstanceOutputs) -> Regions:
    """Return which parts of which images the instances are, if they are any."""
    if outputs.regions is None:
        raise UsageError(NO_REGIONS)
    return outputs.regions


def _margin(probabilities: Tensor) -> Tensor:
    """Top-1 minus top-2 probability: 1 when certain, 0 when torn between two classes."""
    top, place = probabilities.max(dim=-1, keepdim=True)
    second = probabilities.scatter(-1, place, -1.0).amax(dim=-1)  # half the time of topk on a CPU
    return top.squeeze(-1) - second


def _logits(outputs: InstanceOutputs) -> tuple[Tensor, Tensor]:
    """Logits ``(N, C)`` of student and teacher, without gradient."""
    return outputs.student_logits.detach(), outputs.teacher_logits


def _normalised_entropy(probabilities: Tensor) -> Tensor:
    """Entropy over log C: 0 when certain, 1 when uniform."""
    return torch.special.entr(probabilities).sum(dim=-1) / math.log(probabilities.shape[-1])


@feature(0.0, 1.0)
def teacher_performance(outputs: InstanceOutputs) -> Tensor:
    """Teacher's probability of the true class."""
    return outputs.true_class(outputs.teacher_probabilities)


@feature(0.0, 1.0)
def student_performance(outputs: InstanceOutputs) -> Tensor:
    """Student's probability of the true class."""
    return outputs.true_class(outputs.student_probabilities)


@feature(0.0, 1.0)
def student_uncertainty(outputs: InstanceOutputs) -> Tensor:
    """Student's margin, top-1 minus top-2 probability (the paper's name; small means uncertain)."""
    return _margin(outputs.student_probabilities)


@feature(0.0, 1.0)
def teacher_uncertainty(outputs: InstanceOutputs) -> Tensor:
    """Teacher's margin, top-1 minus top-2 probability (small means uncertain)."""
    return _margin(outputs.teacher_probabilities)


@feature(0.0, 1.0)
def progress(outputs: InstanceOutputs) -> Tensor:
    """Share of the run that is over."""
    return torch.zeros(outputs.labels.shape, device=outputs.labels.device) + outputs.progress


@feature(0.0, 1.0)
def student_entropy(outputs: InstanceOutputs) -> Tensor:
    """Entropy of the student's prediction over log C."""
    return _normalised_entropy(outputs.student_probabilities)


@feature(0.0, 1.0)
def teacher_entropy(outputs: InstanceOutputs) -> Tensor:
    """Entropy of the teacher's prediction over log C."""
    return _normalised_entropy(outputs.teacher_probabilities)


@feature(0.0, 20.0)
def student_cross_entropy(outputs: InstanceOutputs) -> Tensor:
    """Student's cross-entropy in nats, clipped at 20."""
    return outputs.student_cross_entropy


@feature(0.0, 20.0)
def teacher_cross_entropy(outputs: InstanceOutputs) -> Tensor:
    """Teacher's cross-entropy in nats, clipped at 20."""
    return outputs.teacher_cross_entropy


@feature(0.0, 20.0)
def divergence(outputs: InstanceOutputs) -> Tensor:
    """KL(teacher ‖ student) at temperature 1 in nats, clipped at 20."""
    log_ratio = outputs.teacher_log_probabilities - outputs.student_log_probabilities
    return (outputs.teacher_probabilities * log_ratio).sum(dim=-1)


@feature(0.0, 50.0)
def student_logit_spread(outputs: InstanceOutputs) -> Tensor:
    """Standard deviation of the student's logits, clipped at 50."""
    return outputs.student_logits.detach().std(dim=-1, correction=0)


@feature(0.0, 50.0)
def teacher_logit_spread(outputs: InstanceOutputs) -> Tensor:
    """Standard deviation of the teacher's logits, clipped at 50."""
    return outputs.teacher_logits.std(dim=-1, correction=0)


@feature(-2.0, 2.0)
def teacher_relative_spread(outputs: InstanceOutputs) -> Tensor:
    """Log of the standard deviation of the teacher's logits over its mean in the run's batch, clipped at ±2."""
    spread = outputs.by_run(outputs.teacher_logits.std(dim=-1, correction=0))
    return (spread / spread.mean(dim=-1, keepdim=True)).log().flatten()


@feature(-4.0, 1.0)
def student_relative_spread(outputs: InstanceOutputs) -> Tensor:
    """Log of the standard deviation of the student's logits over that of the teacher's, clipped at -4 and 1."""
    student, teacher = (logits.std(dim=-1, correction=0) for logits in _logits(outputs))
    return (student / teacher).log()


@feature(-1.0, 1.0)
def logit_correlation(outputs: InstanceOutputs) -> Tensor:
    """Correlation over the classes of the student's with the teacher's logits."""
    student, teacher = (logits - logits.mean(dim=-1, keepdim=True) for logits in _logits(outputs))
    return F.cosine_similarity(student, teacher, dim=-1)


@feature(0.0, 1.0)
def agreement(outputs: InstanceOutputs) -> Tensor:
    """1 where teacher and student predict the same class, else 0."""
    return (outputs.student_logits.argmax(dim=-1) == outputs.teacher_logits.argmax(dim=-1)).float()


@feature(0.0, 1.0)
def teacher_correct(outputs: InstanceOutputs) -> Tensor:
    """1 where the teacher predicts the true class, else 0."""
    return (outputs.teacher_logits.argmax(dim=-1) == outputs.labels).float()


@feature(0.0, 1.0)
def student_correct(outputs: InstanceOutputs) -> Tensor:
    """1 where the student predicts the true class, else 0."""
    return (outputs.student_logits.argmax(dim=-1) == outputs.labels).float()


@feature(0.0, 1.0, needs_regions=True)
def objectness(outputs: InstanceOutputs) -> Tensor:
    """Probability, as the student's proposal network sees it, that there is an object in the region."""
    return _regions(outputs).objectness


@feature(0.0, 1.0, needs_regions=True)
def overlap(outputs: InstanceOutputs) -> Tensor:
    """Intersection over union of the region with the real box that it was matched with; 0 without boxes."""
    return _regions(outputs).overlap


FEATURES: Registry[Feature] = Registry(
    "feature",
    {name: part for name, part in list(globals().items()) if isinstance(part, Feature)},
    instance_of(Feature, "a function under a @feature line"),
)
