"""Finds the taps of networks that name none by observing a forward of an empty image."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.outputs import give_logits, meta_twin
from rlkd_env.models.taps.features import Taps, set_taps, taps_of
from rlkd_env.models.taps.maps import as_map, has_aspect, token_grid

SEARCH_SIZE = 224
"""Stages are searched on images at least this large, where only pooled maps have a single pixel."""

SEARCH_IMAGES = 2
"""More than one, so that tensors that do not depend on the images are not taken for maps."""

RECTIFIERS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Hardtanh)  # ReLU6 is a Hardtanh
ACTIVATIONS = (*RECTIFIERS, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus)
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Call:
    """The output of one call of a module."""

    name: str
    module: nn.Module
    given: Tensor

    @property
    def depth(self) -> int:
        """In how many modules it lies, beside the network itself."""
        return self.name.count(".")


def add_taps(
    network: nn.Module, num_classes: int, image_shape: tuple[int, int, int], given: Mapping[str, Any] | None = None
) -> nn.Module:
    """Check that a network maps images ``(N, *image_shape)`` to logits ``(N, C)``, and give it taps if it has none.

    One that returns more than logits is made to return them alone, see :func:`~rlkd_env.models.outputs.give_logits`.

    In-place activations are made out-of-place, because they would overwrite what the taps read. If no taps can be
    found, :func:`~rlkd_env.models.taps.features.taps_of` reports it when they are needed. The ``given`` fields of
    :class:`~rlkd_env.models.taps.features.Taps` override the network's own or found ones.

    Raises:
        UsageError: If the network cannot take the images, returns anything but logits of the classes, or lacks a module
            that its taps name.
    """
    for module in network.modules():
        if isinstance(module, ACTIVATIONS) and getattr(module, "inplace", False):
            object.__setattr__(module, "inplace", False)
    give_logits(network, image_shape)
    logits, calls, size = _watch(network, image_shape)
    kind = type(network).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UsageError(f"the network {kind} does not return logits (N, classes)")
    if logits.shape[1] != num_classes:
        raise UsageError(
            f"the network {kind} returns {logits.shape[1]} logits, but the data has {num_classes} classes: "
            "let its factory take num_classes"
        )
    taps = getattr(network, "taps", None)
    if taps is None:
        taps = Taps(*_stages(calls, size), _classifier(calls, logits, num_classes))
    elif not isinstance(taps, Taps):
        raise UsageError(f"the network {kind} has an attribute taps of type {type(taps).__name__}, not Taps")
    if given:
        # Given stages do not match pre-activations that were found.
        taps = replace(taps, **{"preactivations": (), **given} if "stages" in given else given)
        if not taps.classifier:
            raise UsageError(f"the classifier of the network {kind} was not found: name it with the option classifier")
    if taps.classifier:
        taps_of(set_taps(network, taps))
    return network


def _watch(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Any, list[Call], tuple[int, int]]:
    """Forward an empty image and return logits, the modules' calls in the order in which they ended, and its size.

    It runs on PyTorch's meta device if the network's code allows that, and on an enlarged image if the network accepts
    one, because the last stages of a small image are a single pixel.
    """
    channels, height, width = image_shape
    try:
        logits, calls = record_calls(network, torch.zeros(SEARCH_IMAGES, *image_shape, device="meta"))
    except Exception:
        device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
        try:
            logits, calls = record_calls(network, torch.zeros(SEARCH_IMAGES, *image_shape, device=device))
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"the network {type(network).__name__} cannot take images of shape {image_shape}: {reason}"
            ) from error
        return logits, calls, (height, width)
    factor = -(-SEARCH_SIZE // min(height, width))
    if factor == 1:
        return logits, calls, (height, width)
    larger = (factor * height, factor * width)
    try:
        return *record_calls(network, torch.zeros(SEARCH_IMAGES, channels, *larger, device="meta")), larger
    except Exception:  # the network has a fixed image size
        return logits, calls, (height, width)


@torch.no_grad()
def record_calls(network: nn.Module, image: Tensor) -> tuple[Any, list[Call]]:
    """Forward images through a copy (it may keep state) in evaluation mode, on the meta device without weights."""
    twin = meta_twin(network) if image.device.type == "meta" else copy.deepcopy(network)
    twin.eval()
    calls: list[Call] = []
    for name, module in twin.named_modules():
        module.register_forward_hook(_recorder(calls, name))
    return twin(image), calls


def _recorder(calls: list[Call], name: str) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        if isinstance(output, Tensor):
            calls.append(Call(name, module, output))

    return record


def _stages(calls: list[Call], image_size: tuple[int, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules that end the stages, and those whose inputs are the same maps before the activation.

    A stage ends with the last map of its size. Among the modules that output maps of this size only the outermost
    count, because inside a block that shrinks the map a branch may still work at the larger size.
    """
    times = Counter(call.name for call in calls)
    last: dict[tuple[int, int], Call] = {}
    begun = False
    for call in calls:
        # Before the first module with weights, maps are only copies of the image.
        begun = begun or any(True for _ in call.module.parameters(recurse=False))
        if not begun or not call.name or times[call.name] > 1:
            continue
        size = _map_size(call.given, image_size, last)
        if size is not None and (size not in last or call.depth <= last[size].depth):
            last[size] = call
    pooled = {id(call.given) for call in calls if isinstance(call.module, POOLINGS)}
    sizes = sorted((size for size, call in last.items() if id(call.given) not in pooled), reverse=True)
    # Convolutions without padding crop a few pixels; a stage roughly halves its map.
    pairs = zip_longest(sizes, sizes[1:])
    ends = [last[size] for size, after in pairs if after is None or min(after) <= 2 / 3 * min(size)]
    # A block may use one activation twice; a tap reads its last use.
    final = {call.name: call for call in calls if isinstance(call.module, ACTIVATIONS)}
    activated = {id(call.given): name for name, call in final.items()}
    activations = [activated.get(id(call.given)) for call in ends]
    names = tuple(name for name in activations if name is not None)
    return tuple(call.name for call in ends), names if len(names) == len(ends) else ()


def _map_size(tensor: Tensor, image_size: tuple[int, int], known: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the size of the map that a tensor is, or None if it is none; a single pixel does not count.

    A map has the image's aspect ratio. Tokens are one if their grid has the size of one before them, which a vision
    transformer's patches have.
    """
    if tensor.dim() not in (3, 4) or tensor.shape[0] != SEARCH_IMAGES:
        return None
    if tensor.dim() == 3:
        size = token_grid(tensor.shape[1], image_size)
        return size if size in known else None
    height, width = as_map(tensor, image_size).shape[-2:]
    return (height, width) if height * width > 1 and has_aspect(height, width, image_size) else None


def _classifier(calls: list[Call], logits: Tensor, num_classes: int) -> str:
    """Return the name of the linear layer or 1x1 convolution that computed the logits, or an empty string."""
    for call in reversed(calls):
        module = call.module
        if isinstance(module, nn.Linear) and call.given is logits:
            return call.name
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == num_classes:
            return call.name
    return ""
