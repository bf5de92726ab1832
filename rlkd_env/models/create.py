"""Networks by name: our own, torchvision's, and the user's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from rlkd_env.models.cnn import CNNS
from rlkd_env.models.digits import DIGITS_NETWORKS
from rlkd_env.models.find_taps import add_taps
from rlkd_env.models.mobilenet import MOBILENETS
from rlkd_env.models.module_path import create_from_path, import_factory
from rlkd_env.models.resnet import RESNETS
from rlkd_env.models.shufflenet import SHUFFLENETS
from rlkd_env.models.torchvision_networks import PREFIX, check_torchvision, create_torchvision, torchvision_names
from rlkd_env.models.vgg import VGGS
from rlkd_env.models.wide_resnet import WIDE_RESNETS
from rlkd_env.registry import Registry, UsageError

MODELS: Registry[Callable[[int, tuple[int, int, int]], nn.Module]] = Registry("network")
"""Our own networks by name."""
for _family in (DIGITS_NETWORKS, CNNS, RESNETS, WIDE_RESNETS, VGGS, MOBILENETS, SHUFFLENETS):
    for _name, _factory in _family.items():
        MODELS.register(_name)(_factory)


def file_stem(name: str) -> str:
    """Return a network's name as part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)


def is_same_model(first: str, second: str) -> bool:
    """Whether two names stand for one network, as ``MobileNetV2`` and ``mobilenet_v2_half`` do."""
    if first in MODELS and second in MODELS:
        return MODELS[first] is MODELS[second]
    return first not in MODELS and second not in MODELS and first.removeprefix(PREFIX) == second.removeprefix(PREFIX)


def is_module_path(name: str) -> bool:
    """Whether a network's name is the path of a user's factory, so that creating it imports code."""
    return ":" in name


def check_model(name: str) -> None:
    """Check the name of a network before time is spent on anything else; a module path is imported.

    Raises:
        UsageError: if there is no such network.
    """
    if is_module_path(name):
        import_factory(name)
    elif name not in MODELS:
        check_torchvision(_torchvision_name(name))


def create_model(name: str, num_classes: int, image_shape: tuple[int, int, int], **options: Any) -> nn.Module:
    """Create an untrained network that maps images ``(N, *image_shape)`` to logits ``(N, num_classes)``.

    Args:
        name: one of three kinds. A name in :data:`MODELS`. A classifier of torchvision as ``torchvision/resnet50``, or
            without the prefix if none of ours has that name (``vgg11`` is ours, ``resnet50`` torchvision's). A function
            or class of the user's as ``package.module:factory``, called with the keyword arguments ``num_classes`` and
            ``image_shape`` if it has parameters of these names.
        num_classes: number of classes C.
        image_shape: channels, height, width.
        options: ``stages``, ``preactivations`` (names of modules, as a tuple or separated by commas) and ``classifier``
            (a name) replace the network's :class:`~rlkd_env.models.features.Taps`. All others go to torchvision or the
            user's factory; our own networks have none.

    Returns:
        The network, with taps in its attribute ``taps`` (a torchvision or user's network only if they could be found).

    Raises:
        UsageError: if the name or an option is unknown, or the network does not go with the images or classes.
    """
    if num_classes < 1 or len(image_shape) != 3 or min(image_shape) < 1:
        raise UsageError(f"no network has {num_classes} classes for images of shape {tuple(image_shape)}")
    taps, options = _split_options(options)
    if name in MODELS:
        if options:
            raise UsageError(f"the network {name!r} has no option {next(iter(options))!r}")
        network = MODELS[name](num_classes, image_shape)
        return add_taps(network, num_classes, image_shape, taps) if taps else network
    if is_module_path(name):
        network = create_from_path(name, num_classes, image_shape, options)
    else:
        network = create_torchvision(_torchvision_name(name), num_classes, image_shape, options)
    return add_taps(network, num_classes, image_shape, taps)


def _torchvision_name(name: str) -> str:
    """Return the name without the prefix.

    Raises:
        UsageError: if it has none and torchvision does not know it either; the message names the closest match.
    """
    if name.startswith(PREFIX) or name in torchvision_names():
        return name.removeprefix(PREFIX)
    close = difflib.get_close_matches(name, [*MODELS, *torchvision_names()], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(
        f"unknown network {name!r}.{hint} Valid: {', '.join(sorted(MODELS))}; "
        f"torchvision's classifiers, such as {PREFIX}resnet50; your own, as package.module:factory"
    )


def _split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that name taps, as fields of Taps, and the others."""
    others = dict(options)
    taps: dict[str, Any] = {}
    for field in ("stages", "preactivations"):
        if field in others:
            names = others.pop(field)
            given = names if isinstance(names, tuple | list) else str(names).split(",")  # "0.1" may come as a number
            taps[field] = tuple(str(name).strip() for name in given if str(name).strip())
    if "classifier" in others:
        taps["classifier"] = str(others.pop("classifier"))
    return taps, others
