"""Networks by name: our own, torchvision's, timm's, the user's, and detectors on the first two."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.classifiers import timm_networks
from rlkd_env.models.classifiers.own_networks import MODELS
from rlkd_env.models.classifiers.torchvision_networks import (
    PREFIX,
    check_torchvision,
    create_torchvision,
    sketch_torchvision,
    torchvision_names,
)
from rlkd_env.models.module_path import create_from_path, import_factory
from rlkd_env.models.taps.features import set_taps, taps_of
from rlkd_env.models.taps.find_taps import add_taps
from rlkd_env.models.taps.reused_classifier import OPTION as REUSED_CLASSIFIER, Head, reuse_classifier

DETECTOR_PREFIX = "fasterrcnn/"


def file_stem(name: str) -> str:
    """Return a network's name as part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)


def is_same_model(first: str, second: str) -> bool:
    """Whether two names stand for one network, as ``MobileNetV2`` and ``mobilenet_v2_half`` do."""
    if is_detector(first) and is_detector(second):
        return is_same_model(first.removeprefix(DETECTOR_PREFIX), second.removeprefix(DETECTOR_PREFIX))
    if first in MODELS and second in MODELS:
        return MODELS[first] is MODELS[second]
    return first not in MODELS and second not in MODELS and first.removeprefix(PREFIX) == second.removeprefix(PREFIX)


def is_module_path(name: str) -> bool:
    """Whether a network's name is the path of a user's factory, so that creating it imports code."""
    return ":" in name


def is_detector(name: str) -> bool:
    """Whether a network's name is that of a detector."""
    return name.startswith(DETECTOR_PREFIX)


def check_model(name: str) -> None:
    """Check the name of a network before time is spent on anything else; a module path is imported."""
    if is_module_path(name):
        import_factory(name)
    elif is_detector(name):
        from rlkd_env.models.detectors.detector import check_detector  # which takes torchvision's time to import

        check_detector(name.removeprefix(DETECTOR_PREFIX))
    elif name.startswith(timm_networks.PREFIX):
        timm_networks.check_timm(name.removeprefix(timm_networks.PREFIX))
    elif name not in MODELS:
        check_torchvision(_torchvision_name(name))


def create_model(name: str, num_classes: int, image_shape: tuple[int, int, int], **options: Any) -> nn.Module:
    """Create a network that maps images ``(N, *image_shape)`` to logits ``(N, num_classes)``, or a detector.

    Networks are untrained, but for detectors and networks of timm that are asked for pretrained weights.

    Args:
        name: one of five kinds. A name in :data:`MODELS`. A classifier of torchvision as ``torchvision/resnet50``, or
            without the prefix if none of ours has that name (``vgg11`` is ours, ``resnet50`` torchvision's). A
            classifier of timm, where that is installed, as ``timm/vit_tiny_patch16_224``. A function or class of the
            user's as ``package.module:factory``, called with the keyword arguments ``num_classes`` and ``image_shape``
            if it has parameters of these names. A detector on one of our or torchvision's networks as
            ``fasterrcnn/resnet50``: see :func:`~rlkd_env.models.detectors.detector.create_detector`.
        num_classes: number of classes C; of a detector without the background.
        image_shape: channels, height, width.
        options: ``stages``, ``preactivations`` (names of modules, as a tuple or separated by commas) and ``classifier``
            (a name) replace the network's :class:`~rlkd_env.models.taps.features.Taps`. ``reused_classifier``, which
            the method simkd writes into a student's file, replaces its head by another
            (:class:`~rlkd_env.models.taps.reused_classifier.Head`). All others go to the detector, torchvision or the
            user's factory; our own networks have none.

    Returns:
        The network, with taps in its attribute ``taps`` (a torchvision or user's network only if they could be found).

    Raises:
        UsageError: if the name or an option is unknown, or the network does not go with the images or classes.
    """
    return _create(name, num_classes, image_shape, options, is_filled=True)


def create_to_load(name: str, num_classes: int, image_shape: tuple[int, int, int], **options: Any) -> nn.Module:
    """Create a network like :func:`create_model`, but whose weights are loaded next, so that none are downloaded."""
    return _create(name, num_classes, image_shape, options, is_filled=False)


def shapes_to_load(
    name: str, num_classes: int, image_shape: tuple[int, int, int], **options: Any
) -> dict[str, Tensor] | None:
    """Return the state dict of a network of torchvision, of which tensors have shapes alone, without building it.

    It tells a file that names a network far larger than its weights. Of other networks, None is returned.

    Raises:
        UsageError: if the name or an option is unknown, or the network does not go with the images.
    """
    if name in MODELS or is_module_path(name) or is_detector(name) or name.startswith(timm_networks.PREFIX):
        return None
    head, options = _split_head(options)
    taps, options = _split_options(options)
    network = sketch_torchvision(_torchvision_name(name), num_classes, image_shape, options)
    if head is not None:
        reuse_classifier(add_taps(network, num_classes, image_shape, taps), num_classes, image_shape, head)
    return network.state_dict()


def _create(
    name: str, num_classes: int, image_shape: tuple[int, int, int], options: dict[str, Any], is_filled: bool
) -> nn.Module:
    if num_classes < 1 or len(image_shape) != 3 or min(image_shape) < 1:
        raise UsageError(f"no network has {num_classes} classes for images of shape {tuple(image_shape)}")
    head, options = _split_head(options)
    if head is not None:
        if is_detector(name):
            raise UsageError(f"the detector {name!r} cannot have the classifier of another network")
        network = _create(name, num_classes, image_shape, options, is_filled)
        return reuse_classifier(network, num_classes, image_shape, head)
    taps, options = _split_options(options)
    if is_detector(name):
        from rlkd_env.models.detectors.detector import create_detector

        detector = create_detector(name.removeprefix(DETECTOR_PREFIX), num_classes, image_shape, options, is_filled)
        taps_of(set_taps(detector, replace(detector.taps, **taps)))
        return detector
    if name in MODELS:
        if options:
            raise UsageError(f"the network {name!r} has no option {next(iter(options))!r}")
        network = MODELS[name](num_classes, image_shape)
        return add_taps(network, num_classes, image_shape, taps) if taps else network
    if is_module_path(name):
        network = create_from_path(name, num_classes, image_shape, options)
    elif name.startswith(timm_networks.PREFIX):
        short = name.removeprefix(timm_networks.PREFIX)
        network = timm_networks.create_timm(short, num_classes, image_shape, _options_of(options, is_filled))
    else:
        network = create_torchvision(_torchvision_name(name), num_classes, image_shape, options)
    return add_taps(network, num_classes, image_shape, taps)


def _options_of(options: dict[str, Any], is_filled: bool) -> dict[str, Any]:
    """Return the options without one that asks for weights, if others are loaded next."""
    return options if is_filled else {name: value for name, value in options.items() if name != "pretrained"}


def _torchvision_name(name: str) -> str:
    """Return the name without the prefix."""
    if name.startswith(PREFIX) or name in torchvision_names():
        return name.removeprefix(PREFIX)
    close = difflib.get_close_matches(name, [*MODELS, *torchvision_names()], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(
        f"unknown network {name!r}.{hint} Valid: {', '.join(sorted(MODELS))}; "
        f"torchvision's classifiers, such as {PREFIX}resnet50; timm's, such as {timm_networks.PREFIX}resnet18; "
        f"your own, as package.module:factory; "
        f"detectors, such as {DETECTOR_PREFIX}resnet18"
    )


def _split_head(options: dict[str, Any]) -> tuple[Head | None, dict[str, Any]]:
    """Return the head that an option describes, or None, and the other options."""
    if REUSED_CLASSIFIER not in options:
        return None, options
    others = {name: value for name, value in options.items() if name != REUSED_CLASSIFIER}
    return Head.read(options[REUSED_CLASSIFIER]), others


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
