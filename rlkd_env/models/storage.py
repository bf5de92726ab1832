"""Networks on disk: weights as safetensors, with what is needed to rebuild the network in the file's metadata."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.create import create_to_load, is_detector, is_module_path, is_same_model
from rlkd_env.models.weights import is_safetensors, load_weights_file, read_state_dict, takes_colour
from rlkd_env.utils.files import load_weights, read_tensors, write_tensors


def save_network(
    path: Path,
    weights: dict[str, Tensor],
    model: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write a network atomically.

    Args:
        path: of the file.
        weights: the network's state dict.
        model: its name, of any kind that :func:`~rlkd_env.models.create_model` takes.
        num_classes: number of classes C.
        image_shape: channels, height, width.
        options: plain values that it was created with beside these.
    """
    card: dict[str, Any] = {"model": model, "num_classes": num_classes, "image_shape": image_shape}
    if options:
        card["options"] = dict(options)
    # One entry, as safetensors shuffles several and the same network should give the same file.
    write_tensors(path, weights, {"network": json.dumps(card)})


def load_network(
    path: Path, num_classes: int, image_shape: tuple[int, int, int], model: str | None = None, **options: Any
) -> nn.Module:
    """Read a network that :func:`save_network` wrote, or weights of a network that is named here.

    A network for colour images takes grey ones, with a warning.

    Args:
        path: of the file: ours, or a ``.pth`` file of weights, which says not what network it is of.
        num_classes: that the data has.
        image_shape: that the data's images have.
        model: the network's name; needed for a file that was not saved by rlkd, and for one of the user's own networks,
            as a file alone never makes code run.
        options: of :func:`~rlkd_env.models.create_model`, in place of those that the file names.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UsageError: if the file is missing, damaged or not of these formats, is for other classes, images or another
            network, or its network has to be named.
    """
    card = _read_card(path)
    if card is None:
        if model is None:
            raise UsageError(
                f"{path} was not saved by rlkd, so it does not say what network it holds: name it (--teacher-model)"
            )
        is_colour = takes_colour(read_state_dict(path))
        shape = (3, *image_shape[1:]) if is_colour and image_shape[0] == 1 else image_shape
        network = create_to_load(model, num_classes, shape, **options)
        load_weights_file(network, path)
        return _for_images(network, model, shape, image_shape, path)
    saved_model, saved_classes, saved_shape, saved_options = card
    if saved_classes != num_classes:
        raise UsageError(f"the network {path} knows {saved_classes} classes, but the data has {num_classes}")
    is_fit = saved_shape == image_shape or (image_shape[0] == 1 and saved_shape == (3, *image_shape[1:]))
    if not is_fit:
        raise UsageError(f"the network {path} takes images of shape {saved_shape}, but the data's are {image_shape}")
    if model is not None and not is_same_model(model, saved_model):
        raise UsageError(f"{path} holds a network {saved_model!r}, not {model!r}")
    if model is None and is_module_path(saved_model):
        raise UsageError(
            f"{path} holds a network {saved_model!r} of somebody's own code, which a file alone never runs: "
            f"name it, if you trust it (--teacher-model {saved_model})"
        )
    network = create_to_load(saved_model, num_classes, saved_shape, **{**saved_options, **options})
    load_weights(network, read_tensors(path)[0], path)
    return _for_images(network, saved_model, saved_shape, image_shape, path)


def _for_images(
    network: nn.Module, model: str, own_shape: tuple[int, ...], image_shape: tuple[int, int, int], path: Path
) -> nn.Module:
    """Put a network into evaluation mode, and let one for colour images take grey ones where the data has those."""
    if own_shape != image_shape:
        warnings.warn(f"the network {path} takes colour images: it gets the grey ones three times", stacklevel=3)
        # A detector's parts are called one by one too.
        first = network.get_submodule("backbone") if is_detector(model) else network
        first.register_forward_pre_hook(_repeat_channel)
    return network.eval()


def _repeat_channel(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:  # noqa: ARG001
    return (inputs[0].expand(-1, 3, -1, -1),)


def _read_card(path: Path) -> tuple[str, int, tuple[int, int, int], dict[str, Any]] | None:
    """Return name, classes, image shape and options of a file's network, or None where it has no card.

    Raises:
        UsageError: if the file is missing or the card is damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    metadata = read_tensors(path)[1] if is_safetensors(path) else {}
    if "network" not in metadata:
        return None
    try:
        card = json.loads(metadata["network"])
        options = dict(card.get("options", {}))
        channels, height, width = card["image_shape"]
        found = str(card["model"]), card["num_classes"], (channels, height, width), options
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} was not saved by rlkd: its metadata lacks {error}") from None
    if options.keys() & {"name", "num_classes", "image_shape"}:
        raise UsageError(f"{path} was not saved by rlkd: its options repeat what the card says elsewhere")
    return found
