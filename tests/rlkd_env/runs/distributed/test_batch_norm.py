"""Batch norm over the batch of all processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_process import Recording
from torch import nn

from rlkd_env.runs.distributed.batch_norm import DistributedBatchNorm, share_norms


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_a_shared_batch_norm_is_pytorchs(options: dict[str, Any], processes: Recording) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, **options), nn.Flatten(), nn.BatchNorm1d(80))
    shared = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, **options), nn.Flatten(), nn.BatchNorm1d(80))
    shared.load_state_dict(plain.state_dict())
    share_norms(shared, torch.device("cpu"))
    assert [type(module) for module in shared][1::2] == [DistributedBatchNorm, DistributedBatchNorm]
    for step in range(3):
        images, direction = 5.0 + torch.randn(8, 2, 6, 6), torch.randn(8, 80)
        gradients = []
        for network in (plain, shared):
            network.zero_grad()
            (network(images) * direction).sum().backward()
            gradients.append([value.grad for value in network.parameters()])
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=f"step {step}")
    for (name, ours), theirs in zip(shared.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=name)
    torch.testing.assert_close(shared.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-4)
