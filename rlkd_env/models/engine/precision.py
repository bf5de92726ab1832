"""Whether a network's gradients in bfloat16 are what they are in float32, but for rounding."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rlkd_env.utils.randomness import seeded

_LARGEST_ERROR = 10.0
"""Error of bfloat16, as a share of the gradient's norm. That of a ResNet of 110 layers is below 1; where memory that
nobody has written to is taken for gradients, it is any number."""
_M_PERTURB, _FILL = -6, 0x81  # a byte of 0x7e, of which numbers of 1e37 are made


def has_same_gradients(network: nn.Module, images: Tensor, channels_last: bool = False) -> bool:
    """Return whether gradients in bfloat16 are those of float32, but for rounding.

    On a CPU they are not where a convolution with strides is on maps that are smaller than its kernel: PyTorch returns
    parts of the gradient that it has never computed.

    Args:
        network: the network, which stays as it is; of a detector its backbone is looked at.
        images: a few images ``(N, channels, height, width)``.
        channels_last: whether network and images are in this memory format.
    """
    part = copy.deepcopy(network.get_submodule("backbone") if hasattr(network, "roi_heads") else network).train()
    if channels_last:
        part, images = part.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    with _unwritten_memory_filled():
        expected, found = (_gradients(part, images, is_reduced) for is_reduced in (False, True))
    size = torch.stack([gradient.norm() for gradient in expected]).norm()
    errors = torch.stack([(one - other).norm() for one, other in zip(expected, found, strict=True)])
    return bool((errors <= _LARGEST_ERROR * size).all())  # an error that is not a number is not smaller


def _gradients(network: nn.Module, images: Tensor, is_reduced: bool) -> list[Tensor]:
    """Return the gradients of the mean square of all that a network gives."""
    with seeded(0, images.device), torch.autocast(images.device.type, torch.bfloat16, enabled=is_reduced):
        found = network(images)
    outputs = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else [found]
    loss = torch.stack([one.float().square().mean() for one in outputs if isinstance(one, Tensor)]).sum()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


@contextlib.contextmanager
def _unwritten_memory_filled() -> Iterator[None]:
    """Let the C library fill new memory with huge numbers, where it can, so that taking them for results is seen."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is None:
        yield
        return
    set_option(_M_PERTURB, _FILL)
    try:
        yield
    finally:
        set_option(_M_PERTURB, 0)
