"""What PyTorch computes with, whatever the caller has set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def usual_torch_settings() -> Iterator[None]:
    """Compute with gradients and outside of inference mode, by default in float32 and on the CPU; also a decorator.

    So a student learns within a caller's ``torch.no_grad()`` or ``torch.inference_mode()``, and is the same whatever
    ``torch.set_default_dtype`` and ``torch.set_default_device`` were called with.

    >>> with torch.no_grad(), usual_torch_settings():
    ...     torch.is_grad_enabled()
    True
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    is_usual = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    if is_usual and dtype == torch.float32 and device.type == "cpu":  # nothing to change, at a fraction of the time
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if device.type != "cpu":  # only then, because every operation within is slower for it
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield
