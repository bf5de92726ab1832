"""Logits alone, whatever a network returns: objects, mappings, or tuples with auxiliary logits in training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError

_NAMES = ("logits", "out", "output")
"""The keys of a mapping's logits."""


class LogitsHook:
    """A forward hook that leaves the logits of what a network returns, and keeps the auxiliary ones of the last call.

    Attributes:
        keeps_auxiliary: Whether auxiliary logits are kept.
    """

    is_replayable = True
    keeps_auxiliary = False

    def __init__(self) -> None:
        self._auxiliary: tuple[Tensor, ...] = ()

    def __call__(self, network: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002
        """Return the logits, or what is none as it is."""
        logits, auxiliary = read_outputs(output)
        self._auxiliary = auxiliary if self.keeps_auxiliary else ()
        return output if logits is None else logits

    def take_auxiliary(self) -> tuple[Tensor, ...]:
        """Return the auxiliary logits of the last call, once."""
        taken, self._auxiliary = self._auxiliary, ()
        return taken

    def __deepcopy__(self, memo: dict[int, Any]) -> LogitsHook:
        """Return a hook that has kept nothing yet, as logits with gradients cannot be copied."""
        other = type(self)()
        other.keeps_auxiliary = self.keeps_auxiliary
        return other


def read_outputs(output: Any) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """Return the logits in a network's output, or None if there are none, and its auxiliary logits.

    They are the output itself; its attribute ``logits``, or its entry of that name or ``out``; or the first of a tuple.
    Auxiliary logits are other tensors beside them whose names begin with ``aux``, or that have no names.
    """
    if isinstance(output, Tensor):
        return output, ()
    if isinstance(output, Mapping):
        named = dict(output)
    elif hasattr(output, "_asdict"):
        named = output._asdict()
    elif isinstance(output, tuple | list) and output:
        named = {"logits": output[0]} | {f"aux{place}": value for place, value in enumerate(output[1:])}
    else:
        named = {"logits": getattr(output, "logits", None)}
    found = next((named[name] for name in _NAMES if isinstance(named.get(name), Tensor)), None)
    if found is None:
        return None, ()
    others = (value for name, value in named.items() if name.startswith("aux") and isinstance(value, Tensor))
    return found, tuple(value for value in others if value.shape == found.shape)


def give_logits(network: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Let a network for images ``(N, *image_shape)`` return its logits alone, and return it.

    A network that does so already, in training and in evaluation, stays as it is.
    """
    if logits_hook(network) is None and not _gives_tensors(network, image_shape):
        network.register_forward_hook(LogitsHook())
    return network


def logits_hook(network: nn.Module) -> LogitsHook | None:
    """Return the hook that :func:`give_logits` has added to a network, if it has."""
    return next((hook for hook in network._forward_hooks.values() if isinstance(hook, LogitsHook)), None)


def meta_twin(network: nn.Module) -> nn.Module:
    """Return a copy of a network on PyTorch's meta device, where weights take no memory and forwards no time."""
    dry: dict[int, Any] = {
        id(weight): nn.Parameter(weight.to("meta"), weight.requires_grad) for weight in network.parameters()
    }
    dry |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    return copy.deepcopy(network, dry)


@torch.no_grad()
def _gives_tensors(network: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Return whether a network returns tensors in training and in evaluation, as far as that can be tried out."""
    try:
        twin, images = meta_twin(network), torch.zeros(2, *image_shape, device="meta")
        return all(isinstance(twin.train(training)(images), Tensor) for training in (True, False))
    except Exception:  # the user's network may do anything; a hook does no harm
        return False


def check_batch_of_one(network: nn.Module, images: Tensor, role: str) -> None:
    """Refuse a network that cannot be trained on a single image ``(1, channels, height, width)``.

    Raises:
        UsageError: If its batch norms see one number a channel, which has no deviation.
    """
    try:
        copy.deepcopy(network).train()(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            f"the {role} cannot be trained on one image at a time, as its batch norms see a single number a channel "
            "then: take a --batch-size of 2 or more"
        ) from None
