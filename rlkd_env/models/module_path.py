"""A user's own networks, by the path of the function or class that makes them: ``package.module:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.utils.registry import import_outside, is_factory


def import_factory(path: str) -> Callable[..., Any]:
    """Import a factory; this runs the module's code."""
    factory: Callable[..., Any] = import_outside(path, "network")
    if isinstance(factory, nn.Module):
        raise UsageError(f"network {path!r} is a network already, no function or class that makes one")
    if not is_factory(factory):
        raise UsageError(f"network {path!r}: {path.partition(':')[2]!r} is no function or class")
    return factory


def create_from_path(
    path: str, num_classes: int, image_shape: tuple[int, int, int], options: Mapping[str, Any]
) -> nn.Module:
    """Import a factory and call it with the options and, where it has parameters of these names, the other two.

    One with further keyword arguments, such as ``timm:create_model``, gets the number of classes by name, too.
    """
    factory = import_factory(path)
    try:
        signature = inspect.signature(factory)
    except ValueError:  # builtins have none
        signature = inspect.Signature()
    known = {"num_classes": num_classes, "image_shape": image_shape}
    takes_more = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    names = {*signature.parameters, *(["num_classes"] if takes_more else [])}
    arguments = {name: value for name, value in known.items() if name in names} | dict(options)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(arguments) or "no arguments"
        raise UsageError(f"network {path!r} cannot be made with {given}: {error}") from None
    try:
        network = factory(**arguments)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"network {path!r} cannot be made with {', '.join(arguments)}: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {path!r} gave a {type(network).__name__}, not a torch.nn.Module")
    return network
