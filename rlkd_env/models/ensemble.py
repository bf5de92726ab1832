"""Several teachers as one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlkd_env.utils.choices import TeacherWeights


class Teachers(nn.Module):
    """Networks whose logits are averaged; from images to logits ``(N, C)``.

    The mean of logits is, at every temperature, the geometric mean of the softened probabilities, one of the two means
    that Hinton et al. name (arXiv 1503.02531, section 3); so an instance still has one teacher and one temperature.
    Weighted by entropy, a teacher counts the more on an instance the lower the entropy of its prediction is (Kwon et
    al., ICASSP 2020); here its weight is the softmax, over the teachers, of the negative entropies in nats. No label is
    asked for, so weights are the same in training, in evaluation, and for mixed images.

    Args:
        networks: The teachers, each of which takes the same images and gives logits for the same classes.
        weights: How they are averaged.
    """

    def __init__(self, networks: Sequence[nn.Module], weights: TeacherWeights = "mean") -> None:
        super().__init__()
        self.networks, self.weights = nn.ModuleList(networks), weights

    def forward(self, images: Tensor) -> Tensor:
        """Return the averaged logits ``(N, C)``."""
        logits = torch.stack([network(images) for network in self.networks])
        if self.weights == "mean":
            return logits.mean(dim=0)
        entropies = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
        return ((-entropies).softmax(dim=0).unsqueeze(-1) * logits).sum(dim=0)
