"""Networks by name, one file a family. A new network is a factory and a line in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from rlkd_env.models.digits import digits_cnn, mlp
from rlkd_env.registry import Registry

MODELS: Registry[Callable[[int, tuple[int, int, int]], nn.Module]] = Registry("network")
MODELS.register("digits_cnn")(digits_cnn)
for _units in (6, 8, 12, 16, 32, 64):
    MODELS.register(f"mlp{_units}")(partial(mlp, _units))


def create_model(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Create an untrained network that maps images ``(N, *image_shape)`` to logits ``(N, num_classes)``.

    Args:
        name: a name in :data:`MODELS`.
        num_classes: number of classes C.
        image_shape: channels, height, width.

    Raises:
        UsageError: if the name is unknown.
    """
    return MODELS[name](num_classes, image_shape)


__all__ = ["MODELS", "create_model"]
