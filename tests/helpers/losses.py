"""Losses of methods as functions of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def dkd_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Temperature, **options: float) -> Tensor:
    """Return the sum ``(N,)`` of DKD's terms after its warm-up."""
    terms = create_method("dkd", **options).logit_losses(InstanceOutputs(student, teacher, labels), temperature)
    return torch.stack(list(terms.values())).sum(dim=0)
