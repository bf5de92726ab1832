"""The processes that share one run, as ``torchrun`` starts them: who is who, and what they tell each other.

There are two groups. Tensors of the training (gradients, means) go over the data group: NCCL between GPUs, gloo between
CPUs. The commands of the first process go over the control group, which is always gloo; its messages are small and on
the host. There the other processes wait for as long as the first one is busy, for instance while its agent learns.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.models.engine import select_device

_DATA_TIMEOUT = timedelta(seconds=45)
"""Longest wait for another process in the middle of an update. Gloo notices a dead one at once, NCCL only so."""
_CONTROL_TIMEOUT = timedelta(days=1)
"""Longest wait for the first process. If it dies, its connections close, which ends the wait."""
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out", "connection refused")
_MEETINGS = itertools.count()


class ProcessLost(Exception):  # noqa: N818 (not an error of this process)
    """Another process of the run has ended or does not answer."""


@dataclass(frozen=True)
class Processes:
    """The processes that share one run; :meth:`join` makes it. The first one, of rank 0, leads.

    Training goes over the default group of the ``backend``, the rest over the group ``control``; torchrun's ``store``
    outlives the processes.
    """

    rank: int
    count: int
    local_rank: int
    device: torch.device
    backend: str
    control: dist.ProcessGroup
    store: dist.Store

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """Meet the other processes that torchrun has started.

        Each process takes the GPU of its local rank if there are any; one that is named, as ``"cuda:0"``, is shared.

        Raises:
            UsageError: if this machine has fewer GPUs than processes.
        """
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        chosen = torch.device("cuda") if on_gpu and ":" not in device else select_device(device)
        backend = "gloo"
        if chosen.type == "cuda" and ":" not in device:
            gpus, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            if here > gpus:
                raise UsageError(
                    f"{here} processes on this machine need as many GPUs, not {gpus}; or pass --device cpu"
                )
            chosen, backend = torch.device("cuda", local_rank), "nccl"
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        meeting: Any = dist.rendezvous("env://")
        store, rank, count = next(meeting)
        store = dist.PrefixStore(f"rlkd/{next(_MEETINGS)}", store)  # what an earlier meeting has left is not ours
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_DATA_TIMEOUT)
        control: Any = dist.new_group(backend="gloo", timeout=_CONTROL_TIMEOUT)
        return cls(rank, count, local_rank, chosen, backend, control, store)

    @property
    def is_first(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    def leave(self) -> None:
        """Close the connections if they are open; all processes must do so."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def check_batch(self, batch_size: int) -> None:
        """Check that the processes can share a batch.

        Raises:
            UsageError: if the size is not a multiple of the number of processes.
        """
        if batch_size % self.count:
            raise UsageError(f"a batch of {batch_size} images cannot be shared equally by {self.count} processes")

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the processes on each of them, without gradient."""
        summed = values.detach().clone()
        dist.all_reduce(summed)
        return summed

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes on each of them, without gradient."""
        return self.total(values) / self.count

    def gather(self, values: Tensor) -> Tensor:
        """Return the shares ``(n, ...)`` of all processes, in order, as ``(W · n, ...)`` on each of them."""
        pieces = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(self.count)]
        dist.all_gather(pieces, values.detach().contiguous())
        return torch.cat(pieces)

    def take_from_first(self, *values: Tensor) -> None:
        """Overwrite tensors with the first process's."""
        for value in values:
            dist.broadcast(value, src=0)

    def gather_to_first(self, values: Tensor) -> Tensor | None:
        """Return the shares ``(n, ...)`` of all processes as ``(W · n, ...)`` on the first one; None on the others."""
        mine = values.detach().cpu().contiguous()
        pieces = [torch.empty_like(mine) for _ in range(self.count)] if self.is_first else None
        dist.gather(mine, pieces, dst=0, group=self.control)
        return None if pieces is None else torch.cat(pieces)

    def tell(self, message: Tensor) -> Tensor:
        """Send the first process's message, a tensor on the host, to the others, whose tensors it overwrites."""
        dist.broadcast(message, src=0, group=self.control)
        return message

    def tell_object(self, value: Any = None) -> Any:
        """Send a picklable object from the first process to the others; they return it."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def tell_state(self, state: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send what a checkpoint holds, tensors and plain values, from the first process to the others."""
        content = io.BytesIO()
        torch.save(state, content)
        size = int(self.tell(torch.tensor([content.getbuffer().nbytes])))
        if self.is_first:
            self.tell(torch.frombuffer(content.getbuffer(), dtype=torch.uint8))
            return state or {}
        received = self.tell(torch.empty(size, dtype=torch.uint8))
        return torch.load(io.BytesIO(received.numpy().tobytes()), map_location="cpu", weights_only=True)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise a UsageError in all processes if one of them raises one, so that none waits in vain for another.

        Raises:
            UsageError: that of the first process that has one.
        """
        message = None
        try:
            yield
        except (UsageError, OSError) as error:
            message = str(error)
        messages: list[str | None] = [None] * self.count
        dist.all_gather_object(messages, message, group=self.control)
        for told in messages:
            if told is not None:
                raise UsageError(told)

    def is_first_to_notice(self) -> bool:
        """Return whether no other process has asked this before, so that an error of all is reported once."""
        try:
            return self.store.add("noticed", 1) == 1
        except RuntimeError:  # torchrun is gone as well
            return True

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Turn what PyTorch raises after another process is gone into one clear error.

        Raises:
            ProcessLost: if another process has ended or does not answer.
        """
        try:
            yield
        except RuntimeError as error:  # PyTorch's DistError is one; gloo raises the plain class
            text = str(error)
            if isinstance(error, dist.DistError) or any(word in text.lower() for word in _LOST):
                reason = re.search(r"connection (?:reset|closed) by peer|timed out", text, re.IGNORECASE)
                raise ProcessLost(reason.group().lower() if reason else text.splitlines()[0]) from error
            raise
