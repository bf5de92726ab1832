"""Networks on disk: weights as safetensors, with what is needed to rebuild the network in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from rlkd_env.files import load_weights, read_tensors, write_tensors
from rlkd_env.models import create_model
from rlkd_env.registry import UsageError


def save_network(
    path: Path, weights: dict[str, Tensor], model: str, num_classes: int, image_shape: tuple[int, int, int]
) -> None:
    """Write a network atomically.

    Args:
        path: of the file.
        weights: the network's state dict.
        model: its name in :data:`~rlkd_env.models.MODELS`.
        num_classes: number of classes C.
        image_shape: channels, height, width.
    """
    card = {"model": model, "num_classes": num_classes, "image_shape": image_shape}
    # One entry, as safetensors shuffles several and the same network should give the same file.
    write_tensors(path, weights, {"network": json.dumps(card)})


def load_network(
    path: Path, num_classes: int, image_shape: tuple[int, int, int], model: str | None = None
) -> nn.Module:
    """Read a network that :func:`save_network` wrote.

    Args:
        path: of the file.
        num_classes: that the data has.
        image_shape: that the data's images have.
        model: name of the network, for files that do not name it.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UsageError: if the file is missing, damaged or not of this format, or is for other classes or images.
    """
    tensors, metadata = read_tensors(path)
    try:
        card = json.loads(metadata["network"])
        model, saved_classes, saved_shape = card["model"], card["num_classes"], tuple(card["image_shape"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path} was not saved by rlkd: its metadata lacks {error}") from None
    if saved_classes != num_classes:
        raise UsageError(f"the network {path} knows {saved_classes} classes, but the data has {num_classes}")
    if saved_shape != image_shape:
        raise UsageError(f"the network {path} takes images of shape {saved_shape}, but the data's are {image_shape}")
    network = create_model(model, num_classes, image_shape)
    load_weights(network, tensors, path)
    return network.eval()
