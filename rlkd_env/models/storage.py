"""Networks on disk: weights as safetensors, with the description of the network in the file's metadata."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.models.create import create_to_load, is_detector, is_module_path, is_same_model, shapes_to_load
from rlkd_env.models.normalization import Constants
from rlkd_env.models.taps.reused_classifier import OPTION as REUSED_CLASSIFIER, Head
from rlkd_env.models.weights import is_safetensors, load_shared_weights, read_state_dict, takes_colour
from rlkd_env.utils.files import (
    CHECKSUM,
    check_regular,
    check_shapes,
    check_type,
    expanded,
    load_weights,
    read_tensors,
    reading,
    write_tensors,
)
from rlkd_env.utils.notices import tell


def save_network(
    path: Path,
    weights: dict[str, Tensor],
    model: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    options: Mapping[str, Any] | None = None,
    normalization: Constants | None = None,
) -> None:
    """Write a network's state dict atomically, with what :func:`~rlkd_env.models.create_model` made it of.

    The mean and standard deviation that its images were normalised by are written too, if they are known.
    """
    card: dict[str, Any] = {"model": model, "num_classes": num_classes, "image_shape": image_shape}
    if options:
        card["options"] = dict(options)
    if normalization is not None:
        card["normalization"] = normalization
    write_tensors(path, weights, {"network": json.dumps(card)})


def load_network(
    path: Path, num_classes: int, image_shape: tuple[int, int, int], model: str | None = None, **options: Any
) -> nn.Module:
    """Read a network that :func:`save_network` wrote, or the weights of a network that is named here.

    If a network takes colour images and the data are grey, it is adapted, with a warning. A file of an earlier version,
    which has no checksum, is loaded with a line that says so.

    Args:
        path: A file written by :func:`save_network`, or a ``.pth`` or safetensors file of weights alone.
        num_classes: The number of classes of the data.
        image_shape: The channels, height and width of the data's images.
        model: The network's name. It is needed for a file of weights alone and for a user's own network, because a file
            by itself never makes code run.
        options: Options of :func:`~rlkd_env.models.create_model` that override those in the file.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UsageError: If the file is missing, damaged or of another format, if it is for other classes, images or another
            network, or if the network must be named.
    """
    card = _read_card(path)
    if card is None:
        if model is None:
            raise UsageError(
                f"{path} was not saved by rlkd, so it does not say what network it holds: name it (--teacher-model)"
            )
        tensors = read_state_dict(path)
        shape = (3, *image_shape[1:]) if takes_colour(tensors) and image_shape[0] == 1 else image_shape
        network = create_to_load(model, num_classes, shape, **options)
        load_shared_weights(network, tensors, path)
        return _for_images(network, model, shape, image_shape, path)
    _check_card(card, path, num_classes, image_shape, model)
    tensors, metadata = read_tensors(path)
    made_of = {**card.options, **options}
    with reading(path):
        if REUSED_CLASSIFIER in made_of:
            _check_head(Head.read(made_of[REUSED_CLASSIFIER]), tensors, path)
        expected = shapes_to_load(card.model, num_classes, card.image_shape, **made_of)
    if expected is not None:
        check_shapes(tensors, expected, path)
    with reading(path):
        network = create_to_load(card.model, num_classes, card.image_shape, **made_of)
    if CHECKSUM not in metadata:
        tell(f"{path} is of an earlier version and has no checksum, so damage would not be noticed")
    load_weights(network, tensors, path)
    return _for_images(network, card.model, card.image_shape, image_shape, path)


def load_student(path: Path | str, model: str | None = None, **options: Any) -> nn.Module:
    """Read a student in evaluation mode, on the CPU, from a run's folder or from a file of one.

    In a folder it is ``student.safetensors``, the student that the run has kept. The file says what network it holds;
    only a user's own, ``package.module:factory``, must be named, because a file by itself never makes code run. The
    options override those in the file.

    Raises:
        UsageError: If there is no such file, if it is damaged, if it holds weights alone, as those of networks that
            were given as objects, or if the network must be named.
    """
    path = expanded(path)
    path = path / STUDENT_FILE if path.is_dir() else path
    card = _read_card(path)
    if card is None:
        raise UsageError(
            f"{path} holds weights alone, as the student was no network with a name: make it in your own code, and "
            "read the weights with its load_state_dict"
        )
    return load_network(path, card.num_classes, card.image_shape, model, **options)


def normalization_of(path: Path) -> Constants | None:
    """Return the mean and standard deviation that a network in a file was trained with, or None if it does not say."""
    card = _read_card(path)
    return None if card is None else card.normalization


def image_shape_of(path: Path) -> tuple[int, int, int]:
    """Return the channels, height and width of the images that a network in a file takes.

    Raises:
        UsageError: If the file does not say so.
    """
    card = _read_card(path)
    if card is None:
        raise UsageError(f"{path} does not say what network it holds")
    return card.image_shape


_LARGEST_SIDE, _MOST_CLASSES = 2**14, 2**20
"""A file that says more is not asked for its network, which would not fit into memory."""


class _Required(TypedDict):
    model: str
    num_classes: int
    image_shape: list[int]


class _CardContent(_Required, total=False):
    """A card as it is written."""

    options: dict[str, Any]


class _Card(NamedTuple):
    """The description of a network in a file's metadata."""

    model: str
    num_classes: int
    image_shape: tuple[int, int, int]
    options: dict[str, Any]
    normalization: Constants | None = None


def _check_card(
    card: _Card, path: Path, num_classes: int, image_shape: tuple[int, int, int], model: str | None
) -> None:
    """Raise a UsageError if the network in a file does not fit the data or is not the one that was named."""
    if card.num_classes != num_classes:
        raise UsageError(f"the network {path} knows {card.num_classes} classes, but the data has {num_classes}")
    if card.image_shape != image_shape and (image_shape[0] != 1 or card.image_shape != (3, *image_shape[1:])):
        raise UsageError(
            f"the network {path} takes images of shape {card.image_shape}, but the data's are {image_shape}"
        )
    if model is not None and not is_same_model(model, card.model):
        raise UsageError(f"{path} holds a network {card.model!r}, not {model!r}")
    if model is None and is_module_path(card.model):
        raise UsageError(
            f"{path} holds a network {card.model!r} of somebody's own code, which a file alone never runs: "
            f"name it, if you trust it (--teacher-model {card.model})"
        )


def _check_head(head: Head, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a UsageError if a file names a head that is larger than all that it holds, before memory is asked for."""
    if head.least_numbers > sum(tensor.numel() for tensor in tensors.values()):
        raise UsageError(f"{path} is damaged: it names a head of {head.width} channels, whose weights it does not hold")


def _for_images(
    network: nn.Module, model: str, own_shape: tuple[int, ...], image_shape: tuple[int, int, int], path: Path
) -> nn.Module:
    """Put a network into evaluation mode, and let one for colour images accept grey ones if the data are grey."""
    if own_shape != image_shape:
        warnings.warn(f"the network {path} takes colour images: it gets the grey ones three times", stacklevel=3)
        # The parts of a detector are also called one by one.
        first = network.get_submodule("backbone") if is_detector(model) else network
        first.register_forward_pre_hook(_repeat_channel)
    return network.eval()


def _repeat_channel(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:  # noqa: ARG001
    return (inputs[0].expand(-1, 3, -1, -1),)


def _read_card(path: Path) -> _Card | None:
    """Return the description in a file, or None if it has none."""
    check_regular(path)
    metadata = read_tensors(path)[1] if is_safetensors(path) else {}
    if "network" not in metadata:
        return None
    with reading(path):
        card = json.loads(metadata["network"])
        check_type(card, _CardContent, f"the description of the network in {path}")
        options = card.get("options", {})
        channels, height, width = card["image_shape"]
        found = _Card(card["model"], card["num_classes"], (channels, height, width), options, _constants_in(card))
    if max(found.image_shape) > _LARGEST_SIDE or found.num_classes > _MOST_CLASSES:
        raise UsageError(f"{path} is damaged: no network is for {found.num_classes} classes and {found.image_shape}")
    if options.keys() & {"name", "num_classes", "image_shape"}:
        raise UsageError(f"{path} was not saved by rlkd: its options repeat what the card says elsewhere")
    return found


def _constants_in(card: Mapping[str, Any]) -> Constants | None:
    """Return the constants of normalisation in a card, or None if it has none.

    Raises:
        ValueError: If they are none.
    """
    if card.get("normalization") is None:
        return None
    mean, std = (tuple(map(float, values)) for values in card["normalization"])
    if len(mean) not in (1, card["image_shape"][0]) or len(std) != len(mean):
        raise ValueError("a mean and standard deviation of every channel")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError("a finite mean and a positive standard deviation")
    return mean, std
