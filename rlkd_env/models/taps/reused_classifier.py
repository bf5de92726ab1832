"""A network that ends in a projector and another network's classifier in place of its own head (SimKD)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.taps.features import Taps, classifier_of, feature_shapes, forward_with_features, set_taps, taps_of
from rlkd_env.models.taps.find_taps import POOLINGS, add_taps, record_calls
from rlkd_env.utils.options import Count, read_arguments

OPTION = "reused_classifier"
"""The option of ``create_model`` that makes such a network: a mapping of the arguments of :class:`Head`."""
_KEPT = (*POOLINGS, nn.Flatten)
"""What stays between the last map and the classifier."""


class FrozenLinear(nn.Linear):
    """A linear layer whose weight and bias are buffers, so that they are saved with a network but never trained."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        for name in ("weight", "bias"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)


@dataclass(frozen=True)
class Head:
    """What a projector and a classifier are made of.

    Args:
        width: The channels D of the map whose mean the classifier reads.
        factor: How many times fewer channels the projector has in the middle.
        size: The height and width to which the network's own last map is average-pooled before; None leaves it.
    """

    width: Count
    factor: Count = 2
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.width // self.factor < 1:
            raise UsageError(f"a factor of {self.factor} leaves none of {self.width} channels: take a smaller one")

    @classmethod
    def read(cls, value: Any) -> Head:
        """Return what the option says.

        Raises:
            UsageError: If it is none of those that a student's file has.
        """
        if not isinstance(value, Mapping) or not {"width"} <= value.keys() <= {"width", "factor", "size"}:
            raise UsageError(f"{OPTION} is written by the method simkd into a student's file, and is not to be given")
        size = value.get("size")
        if size is not None and not _is_size(size):
            raise UsageError(f"the size of {OPTION} must be a height and a width, not {size!r}")
        read = read_arguments(cls, {name: one for name, one in value.items() if name != "size"})
        return cls(**read, size=None if size is None else tuple(size))

    @property
    def option(self) -> dict[str, Any]:
        """The option that says this."""
        size = None if self.size is None else list(self.size)
        return {"width": self.width, "factor": self.factor, "size": size}

    @property
    def least_numbers(self) -> int:
        """How many numbers its largest convolutions have, at least."""
        middle = self.width // self.factor
        return 9 * middle * middle + middle * self.width


class Projector(nn.Sequential):
    """Convolutions of 1x1, 3x3 and 1x1, each with batch norm and ReLU, from ``channels`` to those of a head."""

    def __init__(self, channels: int, head: Head) -> None:
        layers: list[nn.Module] = [] if head.size is None else [nn.AdaptiveAvgPool2d(head.size)]
        middle, width = head.width // head.factor, head.width
        for given, wanted, kernel in ((channels, middle, 1), (middle, middle, 3), (middle, width, 1)):
            convolution = nn.Conv2d(given, wanted, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(wanted), nn.ReLU()]
        super().__init__(*layers)


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(one) is int and one > 0 for one in value)


@dataclass(frozen=True)
class ReusedClassifier:
    """Gives fresh students a projector and a copy of another network's classifier.

    Attributes:
        head: What both are made of.
        weight: The classifier's weight ``(C, D)``.
        bias: The classifier's bias ``(C,)``, or None if it has none.
        image_shape: The images' channels, height and width.
    """

    head: Head
    weight: Tensor
    bias: Tensor | None
    image_shape: tuple[int, int, int]

    @property
    def options(self) -> dict[str, Any]:
        """The options of :func:`~rlkd_env.models.create_model` that make the changed network of the plain one."""
        return {OPTION: self.head.option}

    def __call__(self, network: nn.Module) -> nn.Module:
        """Change a network in place, and return it."""
        reuse_classifier(network, len(self.weight), self.image_shape, self.head)
        bias = torch.zeros(len(self.weight)) if self.bias is None else self.bias
        classifier_of(network).load_state_dict({"weight": self.weight, "bias": bias})
        return network


def reuse_classifier(network: nn.Module, num_classes: int, image_shape: tuple[int, int, int], head: Head) -> nn.Module:
    """Put a projector behind a network's last map and a classifier behind its mean; return the network.

    What else stood between the last map and the logits is left out. The network stays of its class, and its ``taps``
    show the projected map as the last stage. The classifier's weights are to be copied or loaded into it.

    Raises:
        UsageError: If the network has no last map ``(N, channels, height, width)`` or no linear classifier, or does
            anything else with its last map than to take its mean.
    """
    if not hasattr(network, "taps"):
        add_taps(network, num_classes, image_shape)
    taps, kind = taps_of(network), type(network).__name__
    if not taps.stages:
        raise UsageError(f"the network {kind} has no feature maps, behind which a projector could be put")
    if not isinstance(classifier_of(network), nn.Linear):
        raise UsageError(f"the classifier of the network {kind} is no linear layer, in whose place another could stand")
    stage, device = taps.stages[-1], next(network.parameters()).device
    images = torch.linspace(-1.0, 1.0, 2 * math.prod(image_shape), device=device).view(2, *image_shape)
    channels = _channels(network, images)
    _leave_out(network, images, stage, taps.classifier)
    with device:
        projector, classifier = Projector(channels, head), FrozenLinear(head.width, num_classes)
    network.set_submodule(stage, nn.Sequential(network.get_submodule(stage), projector))
    network.set_submodule(taps.classifier, classifier)
    stages, before = (tuple(_renamed(name, stage) for name in names) for names in (taps.stages, taps.preactivations))
    set_taps(network, Taps(stages, before, taps.classifier))
    if device.type != "meta":
        _check(network, images, head)
    return network


@torch.no_grad()
def _channels(network: nn.Module, images: Tensor) -> int:
    """Return the channels of a network's last map."""
    was_training = network.training
    maps = forward_with_features(network.eval(), images)[1].stages[-1]
    network.train(was_training)
    return maps.shape[1]


def _leave_out(network: nn.Module, images: Tensor, stage: str, classifier: str) -> None:
    """Let whatever a network calls between its last stage and its classifier do nothing, but for poolings."""
    names = [call.name for call in record_calls(network, images)[1]]
    end = len(names) - names[::-1].index(stage)
    for name in names[end:]:
        module = network.get_submodule(name)
        is_leaf = not any(True for _ in module.children())
        if is_leaf and name != classifier and name not in names[:end] and not isinstance(module, _KEPT):
            network.set_submodule(name, nn.Identity())


def _renamed(name: str, stage: str) -> str:
    """Return the name of a module after the stage that may hold it has become the first of two."""
    return f"{stage}.0{name.removeprefix(stage)}" if name.startswith(f"{stage}.") else name


def _check(network: nn.Module, images: Tensor, head: Head) -> None:
    """Check that the logits are the classifier's of the projected map's mean."""
    try:
        shapes = feature_shapes(network, images)
        fits = shapes.pools_last_map and shapes.pooled == head.width
    except RuntimeError:  # of a layer that is given another number of channels
        fits = False
    if not fits:
        raise UsageError(
            f"the network {type(network).__name__} does not take the mean of its last map, so no projector can be put "
            "behind that: choose another student, such as resnet8x4"
        )
