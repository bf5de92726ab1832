"""The features of a network beside its logits, feature maps and the pooled feature, read by hooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.models.taps.maps import as_map, like_output


@dataclass(frozen=True)
class Taps:
    """The names of the modules at which a network's features are read.

    Attributes:
        stages: The modules whose outputs are the stages' maps after the activation: ``(N, channels, height, width)``,
            with the channels last, or as tokens ``(N, tokens, channels)``, which all become the first form.
        preactivations: The modules whose *inputs* are the same maps before the activation; one per stage, or none.
        classifier: The module that maps the pooled feature ``(N, D)`` to logits ``(N, C)``. It may be a 1x1 convolution
            that is pooled afterwards, as in SqueezeNet.
    """

    stages: tuple[str, ...]
    preactivations: tuple[str, ...]
    classifier: str


@dataclass(frozen=True)
class Features:
    """The features of N images in one network.

    Attributes:
        stages: The maps ``(N, channels, height, width)`` after each stage's activation, in order.
        preactivations: The same maps before the activation; empty if the network's taps name none.
        pooled: The classifier's input ``(N, D)``, averaged over the positions if the classifier is a convolution.
        classifier: The classifier, for methods that ask it about further features; None where there is none to ask.
    """

    stages: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor
    classifier: nn.Module | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The features of all places, one after the other."""
        return (*self.stages, *self.preactivations, self.pooled)

    def map(self, function: Callable[[Tensor], Tensor]) -> Features:
        """Return the features with a function applied to those of every place."""
        stages, before = (tuple(map(function, maps)) for maps in (self.stages, self.preactivations))
        return Features(stages, before, function(self.pooled), self.classifier)

    def to(self, dtype: torch.dtype) -> Features:
        """Return the features in another number format."""
        return self.map(lambda values: values.to(dtype))


@dataclass(frozen=True)
class FeatureShapes:
    """The sizes of a network's features.

    Attributes:
        stages: The channels, height and width of each stage's map.
        pooled: The width D of the pooled feature.
        preactivations: Whether there are the same maps before the activation.
        pools_last_map: Whether the pooled feature is the last map's mean over its positions, so that the classifier, a
            linear layer or a 1x1 convolution, could be asked about each of them.
    """

    stages: tuple[tuple[int, int, int], ...]
    pooled: int
    preactivations: bool = False
    pools_last_map: bool = False


def set_taps(network: nn.Module, taps: Taps) -> nn.Module:
    """Set the taps of a network whose class has none, and return the network."""
    object.__setattr__(network, "taps", taps)  # the setter of nn.Module is typed for tensors and modules only
    return network


def taps_of(network: nn.Module) -> Taps:
    """Return a network's taps, its attribute ``taps``.

    Raises:
        UsageError: If there are none, if they name missing modules, or if the number of pre-activations differs from
            that of stages.
    """
    taps = getattr(network, "taps", None)
    if not isinstance(taps, Taps):
        raise UsageError(
            f"the network {type(network).__name__} names no taps, and none were found: "
            "set its attribute taps to a Taps, or create it with the option classifier (and stages)"
        )
    if taps.preactivations and len(taps.preactivations) != len(taps.stages):
        raise UsageError(
            f"the network {type(network).__name__} has {len(taps.stages)} stages in its taps, but "
            f"{len(taps.preactivations)} pre-activations: name one a stage or none"
        )
    modules = dict(network.named_modules())
    for name in (*taps.stages, *taps.preactivations, taps.classifier):
        if name not in modules:
            raise UsageError(f"the network {type(network).__name__} has no module {name!r}, which its taps name")
    return taps


def classifier_of(network: nn.Module) -> nn.Module:
    """Return the module that maps a network's pooled feature to its logits."""
    return network.get_submodule(taps_of(network).classifier)


def forward_with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Features]:
    """Forward images ``(N, channels, height, width)`` once; return logits ``(N, C)`` and features with gradients."""
    taps = taps_of(network)
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in taps.stages:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(partial(_keep, outputs, name)))
        for name in (*taps.preactivations, taps.classifier):
            hooks.enter_context(network.get_submodule(name).register_forward_pre_hook(partial(_keep, inputs, name)))
        logits = network(images)
    pooled, size = inputs[taps.classifier], (images.shape[-2], images.shape[-1])
    return logits, Features(
        tuple(as_map(outputs[name], size) for name in taps.stages),
        tuple(as_map(inputs[name], size) for name in taps.preactivations),
        pooled.mean((2, 3)) if pooled.dim() == 4 else pooled,
        network.get_submodule(taps.classifier),
    )


@torch.no_grad()
def feature_shapes(network: nn.Module, images: Tensor) -> FeatureShapes:
    """Return the sizes of a network's features for images like these, without changing the network."""
    was_training = network.training
    _, features = forward_with_features(network.eval(), images)
    network.train(was_training)
    stages = tuple((maps.shape[1], maps.shape[2], maps.shape[3]) for maps in features.stages)
    return FeatureShapes(stages, features.pooled.shape[-1], bool(features.preactivations), _pools_last_map(features))


def _pools_last_map(features: Features) -> bool:
    """Return whether features that a linear classifier or 1x1 convolution reads are the last map's mean."""
    if not features.stages or not isinstance(features.classifier, nn.Linear | nn.Conv2d):
        return False
    mean = features.stages[-1].mean(dim=(2, 3))
    return mean.shape == features.pooled.shape and torch.allclose(mean, features.pooled, rtol=1e-4, atol=1e-5)


def forward_from_stage(network: nn.Module, images: Tensor, stage: int, replace: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits ``(N, C)`` of images when ``replace`` changes a stage's map for the layers after it."""
    module, size = network.get_submodule(taps_of(network).stages[stage]), (images.shape[-2], images.shape[-1])

    def replaced(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # noqa: ARG001
        return like_output(replace(as_map(output, size)), output, size)

    with module.register_forward_hook(replaced):
        return network(images)


def _keep(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any = None) -> None:  # noqa: ARG001
    kept[name] = inputs[0] if output is None else output
