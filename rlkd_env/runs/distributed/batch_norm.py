"""Batch norm over the batch that several processes share: PyTorch's own on GPUs, and the same for CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def share_norms(network: nn.Module, device: torch.device) -> None:
    """Let the batch norms inside a network see the whole batch; the names of parameters and buffers stay."""
    for child_name, child in network.named_children():
        setattr(network, child_name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    if device.type != "cuda":
        for module in network.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = DistributedBatchNorm  # type: ignore[assignment]


class DistributedBatchNorm(_BatchNorm):
    """Does what PyTorch's ``SyncBatchNorm`` refuses to do on a CPU; inputs may have any number of dimensions.

    All processes must have the same number of instances.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept everything: the module that this one replaces has taken such inputs before."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(n, channels, ...)`` by the statistics of all processes' instances when training."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [dim for dim in range(input.dim()) if dim != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        processes = dist.get_world_size()
        count = processes * input.numel() // input.shape[1]
        mean = _Sum.apply(values.mean(dims)) / processes
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().mean(dims)) / processes
        self._remember(mean, variance * (count / (count - 1)))
        normalized = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """Sum over the processes; in the backward a process gets the gradients of the losses of all by its values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed
