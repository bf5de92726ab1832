"""Batch norm over the batch of all processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlkd_env.runs.distributed.batch_norm import DistributedBatchNorm, share_norms
from rlkd_env.runs.distributed.processes import Processes


class Recording(Processes):
    """Keeps what the first process tells the others."""

    told: list[Any]

    def tell(self, message: Tensor) -> Tensor:
        self.told.append(message.clone())
        return super().tell(message)

    def tell_object(self, value: Any = None) -> Any:
        self.told.append(super().tell_object(value))
        return self.told[-1]

    def tell_state(self, state: dict[str, Any] | None = None) -> dict[str, Any]:
        before = len(self.told)
        super().tell_state(state)
        del self.told[before:]
        self.told.append(state)
        return state or {}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("WORLD_SIZE", 1), ("RANK", 0)):
        monkeypatch.setenv(name, str(value))
    joined = Recording.join("cpu")
    object.__setattr__(joined, "told", [])
    yield joined
    joined.leave()
    joined.leave()  # a second time does nothing


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
