"""Networks on disk: weights as safetensors, with what is needed to rebuild the network in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rlkd_env.files import load_weights, read_tensors, write_tensors
from rlkd_env.models.create import create_model, is_module_path, is_same_model
from rlkd_env.models.weights import is_safetensors, load_weights_file
from rlkd_env.registry import UsageError


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
        network = create_model(model, num_classes, image_shape, **options)
        load_weights_file(network, path)
        return network.eval()
    saved_model, saved_classes, saved_shape, saved_options = card
    if saved_classes != num_classes:
        raise UsageError(f"the network {path} knows {saved_classes} classes, but the data has {num_classes}")
    if saved_shape != image_shape:
        raise UsageError(f"the network {path} takes images of shape {saved_shape}, but the data's are {image_shape}")
    if model is not None and not is_same_model(model, saved_model):
        raise UsageError(f"{path} holds a network {saved_model!r}, not {model!r}")
    if model is None and is_module_path(saved_model):
        raise UsageError(
            f"{path} holds a network {saved_model!r} of somebody's own code, which a file alone never runs: "
            f"name it, if you trust it (--teacher-model {saved_model})"
        )
    network = create_model(saved_model, num_classes, image_shape, **{**saved_options, **options})
    load_weights(network, read_tensors(path)[0], path)
    return network.eval()


def _read_card(path: Path) -> tuple[str, int, tuple[int, ...], dict[str, Any]] | None:
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
        found = str(card["model"]), card["num_classes"], tuple(card["image_shape"]), options
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} was not saved by rlkd: its metadata lacks {error}") from None
    if options.keys() & {"name", "num_classes", "image_shape"}:
        raise UsageError(f"{path} was not saved by rlkd: its options repeat what the card says elsewhere")
    return found
