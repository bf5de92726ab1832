"""All of torchvision's classifiers, untrained, for images of any number of channels."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rlkd_env.errors import UsageError, unknown_name

PREFIX = "torchvision/"


@cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's classifiers."""
    # Imported here and below because it takes as long as importing PyTorch, and most runs do not need it.
    from torchvision import models

    return frozenset(models.list_models(module=models))


def check_torchvision(name: str) -> None:
    """Check a name without the prefix."""
    if name not in torchvision_names():
        raise unknown_name("torchvision network", name, torchvision_names())


def create_torchvision(
    name: str, num_classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]
) -> nn.Module:
    """Create one of torchvision's classifiers; the options are further arguments, such as ``dropout``.

    Auxiliary outputs are left out, so that it returns plain logits in training too. Networks of a fixed image size are
    built for the size of the images.

    Raises:
        UsageError: If the name or an option is unknown, or the options do not fit the images.
    """
    check_torchvision(name)
    from torchvision import models

    if found := {"weights", "pretrained"} & options.keys():
        raise UsageError(
            f"networks are created untrained: load weights from a file instead of using the option {max(found)!r}"
        )
    channels, height, width = image_shape
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, **options}
    elif name.startswith("vit_"):
        options = {"image_size": height, **options}
    elif name.startswith("maxvit_"):
        options = {"input_size": (height, width), **options}
    try:
        network = models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"torchvision's {name} cannot be built for images of shape {image_shape}: {reason}") from error
    if channels != 3:
        replace_stem(network, channels)
    return network


def sketch_torchvision(
    name: str, num_classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]
) -> nn.Module:
    """Create what :func:`create_torchvision` does, but with weights that have shapes alone, and take no memory.

    It takes hundredths of a second, whatever the size of the network, and draws nothing from PyTorch's generator.
    """
    with torch.random.fork_rng(devices=[]), _ShapesAlone():
        return create_torchvision(name, num_classes, image_shape, options)


class _ShapesAlone(TorchFunctionMode):
    """Makes the tensors that layers ask for on the meta device; others, of which sizes are computed, are real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def replace_stem(network: nn.Module, channels: int) -> None:
    """Replace the first convolution, which takes colour images, by one for another number of channels."""
    name, stem = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    geometry: dict[str, Any] = {key: getattr(stem, key) for key in ("kernel_size", "stride", "padding")}
    other = nn.Conv2d(channels, stem.out_channels, bias=stem.bias is not None, **geometry)
    nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
    if other.bias is not None:
        nn.init.zeros_(other.bias)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, other)
