"""Networks with a head for the class token and one for the distillation token: what each of them says.

They are told by timm's and the authors' names of the heads, ``head`` and ``head_dist``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_HEADS = ("head", "head_dist")


def has_two_heads(network: nn.Module) -> bool:
    """Return whether a network has a head for a distillation token beside that for its class token."""
    return all(isinstance(getattr(network, name, None), nn.Module) for name in _HEADS)


class Heads:
    """The logits ``(N, C)`` of both heads in the latest forward.

    Attributes:
        logits: The class token's and the distillation token's, by the names of their heads.
    """

    def __init__(self) -> None:
        self.logits: dict[str, Tensor] = {}

    @property
    def of_class_token(self) -> Tensor:
        """Those of the class token's head."""
        return self.logits[_HEADS[0]]

    @property
    def of_distillation_token(self) -> Tensor:
        """Those of the distillation token's head."""
        return self.logits[_HEADS[1]]


@contextmanager
def reading_heads(network: nn.Module) -> Iterator[Heads]:
    """Keep what both heads of a network, or of the one within that averages gradients, say in its next forward."""
    inner, heads = network if has_two_heads(network) else network.get_submodule("module"), Heads()

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
            heads.logits[name] = output

        return keep

    hooks = [inner.get_submodule(name).register_forward_hook(keeper(name)) for name in _HEADS]
    try:
        yield heads
    finally:
        for hook in hooks:
            hook.remove()
