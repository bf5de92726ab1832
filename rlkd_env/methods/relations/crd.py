"""Contrastive representation distillation (Tian, Krishnan and Isola, arXiv 1910.10699)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.utils.options import Bounds, Count, NonNegative, Positive

_LARGEST_PRODUCT = 2**24
"""The largest product of anchors and bank (64 MiB in float32) that is computed at once."""


def contrastive_loss(logits: Tensor, num_images: int) -> Tensor:
    """Return the negative log-likelihood ``(N,)`` of telling the positive from the negatives (equation 18).

    With h = exp(logit), n training images and c = K / n this is -log(h₊ / (h₊ + c)) - Σ log(c / (h₋ + c)), computed as
    the softplus of log c - log h₊ and of log h₋ - log c. The logits are ``(N, 1 + K)``, the positive's first.
    """
    margins = logits - math.log((logits.shape[-1] - 1) / num_images)
    return F.softplus(-margins[:, 0]) + F.softplus(margins[:, 1:]).sum(dim=-1)


def bank_scores(anchors: Tensor, bank: Tensor, indices: Tensor) -> Tensor:
    """Return the dot products ``(N, M)`` of anchors ``(N, width)`` with chosen entries of a bank ``(n, width)``.

    All n products are computed and those at the indices ``(N, M)`` picked. That takes N · n values, whereas gathering
    the entries first would take N · M · width; the result and its gradients by the anchors are the same.
    """
    rows = max(1, _LARGEST_PRODUCT // len(bank))
    chunks = zip(anchors.split(rows), indices.split(rows), strict=True)
    return torch.cat([(some @ bank.T).gather(-1, chosen) for some, chosen in chunks])


class NegativeSampler(nn.Module):
    """Draws training images of other classes, uniformly and with replacement, on the device.

    The images, given by their classes ``(n,)``, are sorted by class; a position among the images of other classes skips
    the block of the own class.
    """

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        counts = labels.bincount()
        if int((counts > 0).sum()) < 2:
            raise UsageError("method 'crd' needs training images of at least two classes to contrast")
        self.order = nn.Buffer(labels.argsort(stable=True), persistent=False)
        self.counts = nn.Buffer(counts, persistent=False)
        self.starts = nn.Buffer(counts.cumsum(dim=0) - counts, persistent=False)

    def forward(self, labels: Tensor, count: int) -> Tensor:
        """Draw ``(N, count)`` positions in the training set for instances of the classes ``(N,)``."""
        own = self.counts[labels].unsqueeze(-1)
        # The remainder of so large a number is uniform to within n / 2^62.
        drawn = torch.randint(2**62, (len(labels), count), device=labels.device) % (len(self.order) - own)
        return self.order[drawn + own * (drawn >= self.starts[labels].unsqueeze(-1))]


class MemoryBank(nn.Module):
    """Remembers one network's embeddings ``(n, width)`` of all training images and normalises products with them.

    An update keeps the share ``momentum`` of an old embedding.
    """

    def __init__(self, num_images: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        bound = math.sqrt(3 / width)  # a random embedding then has an expected squared norm of 1
        self.embeddings = nn.Buffer(torch.empty(num_images, width).uniform_(-bound, bound))
        self.log_normalizer = nn.Buffer(torch.tensor(math.inf))  # infinite until the first update fixes it

    def choose_log_normalizer(self, scores: Tensor) -> Tensor:
        """Return log Z: the fixed value or, before the first update, log(n · mean exp(score)). No gradient."""
        estimate = scores.detach().flatten().logsumexp(dim=0) + math.log(len(self.embeddings) / scores.numel())
        return torch.where(self.log_normalizer.isinf(), estimate, self.log_normalizer)

    def remember(self, indices: Tensor, embeddings: Tensor, log_normalizer: Tensor) -> None:
        """Move the entries of images ``(N,)`` towards embeddings ``(N, width)``; for a repeated image the last."""
        same = indices == indices.unsqueeze(-1)
        last = torch.where(same, torch.arange(len(indices), device=indices.device), -1).amax(dim=-1)
        mixed = self.momentum * self.embeddings[indices] + (1.0 - self.momentum) * embeddings[last]
        self.embeddings[indices] = F.normalize(mixed, dim=-1)
        self.log_normalizer.copy_(log_normalizer)


class CRD(FeatureMethod):
    """KD + ``feature_weight`` · contrast of pooled features with memories of all training images.

    Trained linear maps to ``width`` dimensions, scaled to unit length, embed both networks' features. The student's
    embedding u of an instance is contrasted with the memory v of the teacher's embeddings, and vice versa: the
    instance's own entry is the positive, ``negatives`` entries of other classes are the negatives. The score is
    h(u, v) = exp(u · v / contrast_temperature) / Z, with Z fixed by the first batch as n times the mean. After an
    update the instances' entries move towards their embeddings. When two images are mixed, label and index are those of
    the image with the larger share. Negatives are drawn with replacement; the authors' code draws without.

    The two banks hold 2 · n · width values, 49 MiB for 50,000 images. A step computes the products of the N anchors
    with a whole bank, at most 64 MiB at a time, and keeps a few tensors of N · K values. With N = 64, K = 16,384 and
    n = 50,000, a step on one CPU core takes 130 MiB and 0.14 s; gathering the negatives would take 1,100 MiB and 1.9 s.

    Args:
        negatives: The number K of negatives per instance.
        momentum: The share of the old entry when the memory is updated.
        contrast_temperature: Divides the products of embeddings; unrelated to the temperature of the logits.
        width: The width of the embeddings.

    Raises:
        UsageError: If the training images are all of one class or an option is out of range.
    """

    is_stochastic = True

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative = 0.8,
        negatives: Count = 16384,
        momentum: Annotated[float, Bounds(at_least=0, below=1)] = 0.5,
        contrast_temperature: Positive = 0.07,
        width: Count = 128,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.negatives = negatives
        self.contrast_temperature = contrast_temperature
        self.sampler = NegativeSampler(pair.labels)
        self.student_embedding = nn.Linear(pair.student.pooled, width)
        self.teacher_embedding = nn.Linear(pair.teacher.pooled, width)
        self.student_memory = MemoryBank(len(pair.labels), width, momentum)
        self.teacher_memory = MemoryBank(len(pair.labels), width, momentum)
        # For each memory the embeddings and log Z of the last loss, which it takes over after the update.
        self._seen: list[tuple[MemoryBank, Tensor, Tensor]] = []

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Draw the negatives and return the term ``crd`` ``(N,)``."""
        negatives = self.sampler(outputs.labels, self.negatives)
        entries = torch.cat([_indices_of(outputs).unsqueeze(-1), negatives], dim=-1)
        return {"crd": self.feature_weight * self.contrast(outputs, entries)}

    def contrast(self, outputs: InstanceOutputs, entries: Tensor) -> Tensor:
        """Return the sum ``(N,)`` of both contrasts for the memories' entries ``(N, 1 + K)``, the positive first."""
        student_features, teacher_features = features_of(outputs)
        student = F.normalize(self.student_embedding(student_features.pooled), dim=-1)
        teacher = F.normalize(self.teacher_embedding(teacher_features.pooled), dim=-1)
        student_loss, teacher_log_normalizer = self._tell_apart(student, self.teacher_memory, entries)
        teacher_loss, student_log_normalizer = self._tell_apart(teacher, self.student_memory, entries)
        self._seen = [
            (self.student_memory, student.detach(), student_log_normalizer),
            (self.teacher_memory, teacher.detach(), teacher_log_normalizer),
        ]
        return student_loss + teacher_loss

    def after_update(self, outputs: InstanceOutputs) -> None:
        """Move the memories towards the embeddings that the update's loss was computed from.

        Raises:
            RuntimeError: If no loss was computed since the last update.
        """
        if not self._seen:
            raise RuntimeError("after_update() without a loss before it")
        indices = self.gather(_indices_of(outputs))
        for memory, embeddings, log_normalizer in self._seen:
            estimates = self.gather(log_normalizer.reshape(1))  # one per process; Z is a mean, so they are averaged
            memory.remember(indices, self.gather(embeddings), estimates.logsumexp(dim=0) - math.log(len(estimates)))
        self._seen = []

    def _tell_apart(self, anchors: Tensor, memory: MemoryBank, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the anchors' losses ``(N,)`` and log Z."""
        scores = bank_scores(anchors, memory.embeddings, entries) / self.contrast_temperature
        log_normalizer = memory.choose_log_normalizer(scores)
        return contrastive_loss(scores - log_normalizer, len(memory.embeddings)), log_normalizer


def _indices_of(outputs: InstanceOutputs) -> Tensor:
    if outputs.indices is None:
        raise ValueError("this method needs outputs with the images' indices in the training set")
    return outputs.indices
