"""What is recorded once for every kind of batch: batches of the same shapes, with the same parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import nn

from rlkd_env.data import Batch
from rlkd_env.models.graphs import forward_hooks, is_replayable

RecordedT = TypeVar("RecordedT")
WARM_UP = 3
"""Updates that are made operation by operation first: lazy initialisations, and the optimisers' buffers."""
_MOST_KINDS = 4
"""Kinds of batches (of other shapes, or with mixed labels) that are recorded; further ones are not."""


class RecordedByKind(Generic[RecordedT]):
    """Keeps what was recorded for each kind of batch, and knows whether more may be.

    Args:
        network: the network whose forwards are recorded; what hooks on it want to see makes a difference.
        reason: why nothing is recorded from the start; None if something is.

    Attributes:
        reason: Why nothing is recorded any more, or None.
        plain_updates: How many updates were computed operation by operation so far.
    """

    def __init__(self, network: nn.Module, reason: str | None) -> None:
        self.reason, self.plain_updates = reason, 0
        self._network = network
        self._recorded: dict[tuple[Any, ...], RecordedT] = {}
        self._hooks: list[Callable[..., Any]] = []

    def __bool__(self) -> bool:
        return bool(self._recorded)

    def of(self, batch: Batch, record: Callable[[], RecordedT]) -> RecordedT | None:
        """Return what was recorded for batches like this one; recorded now, if the updates are warm.

        None stands for a plain computation. So it is for good, with a warning, once recording has failed.
        """
        if self.reason is not None or self.plain_updates < WARM_UP:
            return None
        hooks = forward_hooks(self._modules)
        if hooks != self._hooks:
            self._hooks = hooks
            self._recorded.clear()
        kind = tuple((name, value.shape, value.dtype) for name, value in batch.tensors().items())
        if kind not in self._recorded and self._may_record_more():
            try:
                self._recorded[kind] = record()
            except RuntimeError as error:
                self.give_up(f"capturing failed: {(str(error).splitlines() or [type(error).__name__])[0]}")
        return self._recorded.get(kind)

    @cached_property
    def _modules(self) -> tuple[nn.Module, ...]:
        return tuple(self._network.modules())

    def give_up(self, reason: str) -> None:
        """Record nothing from now on, and warn of it."""
        self.reason = reason
        warnings.warn(f"updates are not captured as CUDA graphs, and so slower: {reason}", stacklevel=2)

    def _may_record_more(self) -> bool:
        """Whether another kind of batch may be recorded; a hook's tensors can only be those of one kind."""
        most = 1 if self._hooks else _MOST_KINDS
        return len(self._recorded) < most and all(map(is_replayable, self._hooks))


def own_copy(batch: Batch) -> Batch:
    """Return a batch in memory of its own, which recorded work reads."""
    own: dict[str, Any] = {name: value.clone() for name, value in batch.tensors().items()}
    return replace(batch, **own)


def fill(own: Batch, batch: Batch) -> None:
    """Copy a batch into the memory of one of its kind."""
    memory = own.tensors()
    for name, value in batch.tensors().items():
        memory[name].copy_(value)
