"""A comprehensive overhaul of feature distillation (Heo et al., arXiv 1904.01866)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import pooled_to, require_preactivations, shapes_of_stages
from rlkd_env.models.taps.features import taps_of

_RARE = 1e-3
"""A channel that is negative less often than this has three deviations as its margin."""


def negative_margins(norm: nn.BatchNorm2d) -> Tensor:
    """Return the mean ``(channels,)`` of a batch norm's negative outputs, if they are normal (equation 3).

    A channel has the norm's bias as its mean and the size of its weight as its deviation.
    """
    deviation, mean = norm.weight.detach().abs(), norm.bias.detach()
    share = torch.special.ndtr(-mean / deviation)
    density = (-(mean / deviation).square() / 2.0).exp() / math.sqrt(2.0 * math.pi)
    return torch.where(share > _RARE, mean - deviation * density / share, -3.0 * deviation)


def partial_loss(student_map: Tensor, teacher_map: Tensor, margins: Tensor) -> Tensor:
    """Return the sum ``(N,)`` of squared differences that the teacher's sign leaves over (equation 4).

    The maps ``(N, channels, height, width)`` are before their activation, the margins ``(channels,)``. The teacher's
    values are raised to the margin. Where they are not positive, the student's may be below them at no cost.
    """
    target = torch.maximum(teacher_map, margins[:, None, None])
    counts = (student_map > target) | (teacher_map > 0)
    return ((student_map - target).square() * counts).flatten(start_dim=1).sum(dim=-1)


class OFD(FeatureMethod):
    """KD + ``feature_weight`` · Σ over stages of the partial squared differences of the maps before their activation.

    A trained 1x1 convolution with batch norm maps the student's map to the teacher's channels; the teacher's is pooled
    to the student's size. The last stage counts whole, each one before it half as much as the next. The weight is that
    of a sum over a map's entries. The margins follow from the teacher's batch norm whose output is a stage's map before
    its activation, or, where that is a sum, from the last one before it, as in the authors' code.

    Raises:
        UsageError: If a network's taps name no pre-activations, or the teacher has no batch norm before one.
    """

    published_weight = 1e-3

    def prepare(self, pair: Pair) -> None:
        """Create the adapters, and compute the margins."""
        require_preactivations(pair, "ofd")
        shapes = shapes_of_stages(pair, "ofd")
        self.adapters = nn.ModuleList(_adapter(student[0], teacher[0]) for student, teacher in shapes)
        norms = _norms_before(pair)[-len(shapes) :]
        for number, ((_, (channels, _, _)), norm) in enumerate(zip(shapes, norms, strict=True)):
            if norm is None or norm.num_features != channels or norm.weight is None:
                raise UsageError(
                    "method 'ofd' takes its margins from the batch norms before the teacher's activations, and a stage "
                    "has none: choose another teacher, or another method"
                )
            self.register_buffer(f"margins{number}", negative_margins(norm), persistent=False)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``ofd`` ``(N,)``."""
        student, teacher = features_of(outputs)
        count, total = len(self.adapters), torch.zeros_like(outputs.task_loss)
        maps = zip(self.adapters, student.preactivations[-count:], teacher.preactivations[-count:], strict=True)
        for number, (adapter, student_map, teacher_map) in enumerate(maps):
            height, width = student_map.shape[-2:]
            margins = self.get_buffer(f"margins{number}")
            loss = partial_loss(adapter(student_map), pooled_to(teacher_map, (height, width)), margins)
            total = total + loss / 2 ** (count - 1 - number)
        return {"ofd": self.feature_weight * total}


def _adapter(student_channels: int, teacher_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher_channels))


@torch.no_grad()
def _norms_before(pair: Pair) -> list[nn.BatchNorm2d | None]:
    """Return for each of the teacher's stages the batch norm whose output, or what it was added to, is activated."""
    network = pair.teacher_network
    if pair.image_shape is None:
        raise ValueError("this method needs a pair that knows the shape of the images")
    norms: list[tuple[nn.BatchNorm2d, Tensor]] = []
    found: dict[str, nn.BatchNorm2d | None] = {}

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
        if isinstance(module, nn.BatchNorm2d):
            norms.append((module, output))

    def look(name: str, module: nn.Module, inputs: Any) -> None:  # noqa: ARG001
        own = [norm for norm, output in norms if output is inputs[0]] or [norm for norm, _ in norms]
        found[name] = own[-1] if own else None

    names = taps_of(network).preactivations
    looks: list[Callable[..., None]] = [partial(look, name) for name in names]
    hooks = [module.register_forward_hook(note) for module in network.modules()]
    hooks += [network.get_submodule(name).register_forward_pre_hook(at) for name, at in zip(names, looks, strict=True)]
    network(torch.zeros(1, *pair.image_shape, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return [found.get(name) for name in names]
