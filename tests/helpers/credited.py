"""What credits are measured on and held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rlkd_env.runs.run import DistillationRun

REFERENCE = 4.0


def batch_norm_and_dropout_student() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 10)
    )


def random_temperatures(count: int, seed: int) -> torch.Tensor:
    return 10.0 ** torch.rand(count, generator=torch.Generator().manual_seed(seed))


def probe_loss(run: DistillationRun) -> float:
    run.student.eval()
    with torch.no_grad():
        loss = F.cross_entropy(run.student(run.probe.images).double(), run.probe.labels)
    run.student.train()
    return float(loss)
