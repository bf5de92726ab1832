"""Work that a GPU records once and then replays without a launch for each of its operations (CUDA graphs)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Recorder:
    """Records work on a device for replay; on a CPU, which cannot record, a replay does the work anew.

    What is recorded reads and writes the same memory in every replay. Graphs of one recorder share their memory, so
    they must be replayed in the order in which they were recorded; what they hand over is kept by the tensors that
    refer to it.

    Attributes:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_cuda = device.type == "cuda"
        # Of high priority, which the recorded operations keep, so that they go ahead of what a device does beside them.
        self._stream = torch.cuda.Stream(device, priority=-1) if self._is_cuda else None
        self._pool = torch.cuda.graph_pool_handle() if self._is_cuda else None

    @contextlib.contextmanager
    def warming_up(self) -> Iterator[None]:
        """Compute on the stream that will record, so that lazy initialisations are over and gradients know it."""
        if self._stream is None:
            yield
            return
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record work, which is not done now, and return what replays it.

        Raises:
            RuntimeError: If the work cannot be recorded, for example because it waits for the device.
        """
        if not self._is_cuda:
            return work
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def forward_hooks(modules: Iterable[nn.Module]) -> list[Callable[..., Any]]:
    """Return everything that is called when modules are; a replay calls nothing."""
    return [
        hook
        for module in modules
        if module._forward_pre_hooks or module._forward_hooks  # few have any, and this is asked in every update
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]


def is_replayable(hook: Callable[..., Any]) -> bool:
    """Return whether a hook says that it need not be called again: what it keeps is memory that replays overwrite."""
    return getattr(hook, "is_replayable", False)


class RecordedFunction:
    """A function of tensors, without gradients, that is recorded for every shape of its arguments.

    A function of no tensors is recorded once. The first call of a shape is a plain one; where recording fails, all are.

    Args:
        function: From tensors to a tensor.
        device: The device.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function = torch.no_grad()(function)
        self._recorder = Recorder(device)
        self._replays: dict[tuple[Any, ...], tuple[Sequence[Tensor], Callable[[], None], list[Tensor]] | None] = {}
        self._is_recordable = True

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the function's value, a tensor of the caller's own."""
        shape = tuple((value.shape, value.dtype, value.stride()) for value in inputs)
        if shape not in self._replays or not self._is_recordable:
            self._replays[shape] = None
            with self._recorder.warming_up():
                return self._function(*inputs)
        recorded = self._replays[shape] or self._record(shape, inputs)
        if recorded is None:
            return self._function(*inputs)
        own, replay, found = recorded
        for mine, value in zip(own, inputs, strict=True):
            mine.copy_(value)
        replay()
        return found[-1].clone()

    def _record(
        self, shape: tuple[Any, ...], inputs: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Callable[[], None], list[Tensor]] | None:
        own = [value.clone() for value in inputs]
        found: list[Tensor] = []

        def work() -> None:
            found[:] = [self._function(*own)]

        # Each shape has memory of its own, because nobody knows in which order the shapes come.
        self._recorder = Recorder(self._recorder.device)
        try:
            self._replays[shape] = own, self._recorder.record(work), found
        except RuntimeError:
            self._is_recordable = False
            return None
        return self._replays[shape]
