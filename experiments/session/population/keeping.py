"""What can be made of a population's students beside choosing the best: their average, and their ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.randomness import seeded


class Ensemble(nn.Module):
    """Networks whose probabilities are averaged; from images to the logarithm of that average, ``(N, C)``."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the mean probabilities, which a softmax leaves as they are."""
        log_probabilities = torch.stack([member(images).log_softmax(dim=-1) for member in self.members])
        return log_probabilities.logsumexp(dim=0) - math.log(len(self.members))


def average_weights(students: Sequence[nn.Module], run: DistillationRun, seed: int) -> nn.Module:
    """Return a network with the mean of the students' weights.

    The running statistics of its batch norms are those of an epoch of the run's batches, with its own seed.
    """
    averaged = AveragedModel(students[0])
    for student in students:
        averaged.update_parameters(student)
    stream, engine = run.create_stream(seed), run.task.engine
    with seeded(seed, run.device):  # for dropout before a batch norm
        update_bn((engine.images(stream.batch(step).images) for step in range(run.steps_per_epoch)), averaged)
    network: nn.Module = averaged.module
    return network
