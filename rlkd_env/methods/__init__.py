"""Knowledge-distillation methods, one file each. A new method is a file here and a line in ``METHODS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rlkd_env.methods.base import Method
from rlkd_env.methods.cross_entropy import CrossEntropy
from rlkd_env.methods.kd import KD, kd_loss
from rlkd_env.registry import Registry, unknown_name

METHODS: Registry[Callable[..., Method]] = Registry("method")
METHODS.register("kd")(KD)
METHODS.register("cross_entropy")(CrossEntropy)


def create_method(name: str, **options: Any) -> Method:
    """Create a KD method by name.

    Args:
        name: a name in :data:`METHODS`.
        options: arguments of that method.

    Raises:
        UsageError: if the method or one of its options is unknown.
    """
    factory = METHODS[name]
    valid = inspect.signature(factory).parameters
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of method {name!r}", option, valid)
    return factory(**options)


__all__ = ["KD", "METHODS", "CrossEntropy", "Method", "create_method", "kd_loss"]
