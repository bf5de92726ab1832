"""Networks of any operations, stacked: their forward is traced, and each operation is made for all runs at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from rlkd_env.models.stacking.fully_connected import ELEMENTWISE, linear
from rlkd_env.models.stacking.per_run import PerRun, is_shared


def traced(network: nn.Module, count: int) -> Callable[[Tensor], Tensor] | None:
    """Return the forward of a stacked network from images ``(K, N, ...)`` to logits ``(K, N, C)``.

    It is None if ``torch.fx`` cannot trace the network, such as one that looks at the shape of its input.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception:  # the network's own code may raise anything when it is given no tensors
        return None
    forward = _StackedForward(network, graph, count)
    return lambda images: forward.run(PerRun(images, count)).apart


class _StackedForward(fx.Interpreter):
    """Runs a graph on the values of K runs; what a rule does not know how to join goes through ``torch.func.vmap``."""

    def __init__(self, network: nn.Module, graph: fx.Graph, count: int) -> None:
        super().__init__(network, graph=graph)
        self._count = count
        self._stacked = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return PerRun(value, self._count) if target in self._stacked else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        rule = _MODULES.get(type(module))
        is_plain = len(args) == 1 and isinstance(args[0], PerRun) and not kwargs
        found = rule(module, *args) if rule is not None and is_plain else None
        if found is not None:
            return found
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        own = {name: PerRun(tensor, self._count) for name, tensor in tensors.items()}
        return self._by_vmap(lambda own, args, kwargs: functional_call(module, own, args, kwargs), own, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], PerRun):
            return super().call_method(target, args, kwargs)
        return self.call_function(getattr(Tensor, target), args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is operator.getitem and not isinstance(args[0], PerRun):
            return target(*args)  # one of the tensors that an operation has returned
        rule = _FUNCTIONS.get(target)
        found = rule(target, *args, **kwargs) if rule is not None else None
        return self._by_vmap(target, *args, **kwargs) if found is None else found

    def _by_vmap(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given, structure = tree_flatten((args, kwargs))
        places = [place for place, value in enumerate(given) if isinstance(value, PerRun)]
        if not places:
            return function(*args, **kwargs)
        returned: list[Any] = []

        def of_one(*tensors: Tensor) -> list[Tensor]:
            own = dict(zip(places, tensors, strict=True))
            args, kwargs = tree_unflatten([own.get(place, value) for place, value in enumerate(given)], structure)
            returned[:] = tree_flatten(function(*args, **kwargs))
            return [value for value in returned[0] if isinstance(value, Tensor)]

        tensors = iter(vmap(of_one)(*(given[place].apart for place in places)))
        values, structure_of_all = returned  # sizes and other plain values are the same for all runs
        joined = [PerRun(next(tensors), self._count) if isinstance(value, Tensor) else value for value in values]
        return tree_unflatten(joined, structure_of_all)


def _convolution(layer: nn.Conv2d, maps: PerRun) -> PerRun | None:
    if layer.padding_mode != "zeros" or len(maps.shape) != 4:
        return None
    if layer.groups == 1 and not maps.is_merged and is_shared(maps.values):
        values, groups = maps.values[0], 1
    else:
        values, groups = maps.merged, maps.count * layer.groups
    weight = layer.weight.flatten(0, 1)  # which copies nothing, channels-last or not
    bias = None if layer.bias is None else layer.bias.flatten()
    stride = layer.stride
    if groups > 1 and _is_slow(layer, values):
        values, stride = values[..., :: stride[0], :: stride[1]], (1, 1)
    values = F.conv2d(values, weight, bias, stride, layer.padding, layer.dilation, groups)
    return replace(maps, values=values, is_merged=True)


def _is_slow(layer: nn.Conv2d, values: Tensor) -> bool:
    """Whether it is quicker to pick the positions of a layer's stride before its convolution.

    cuDNN makes grouped 1x1 convolutions with a stride one group after another, and copies all maps back and forth for
    it: twice the time in bfloat16 with 16 channels a group, 1.1 to 1.5 times with more (``docs/results/gpu``).
    """
    is_pointwise = layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid") and max(layer.stride) > 1
    return is_pointwise and values.is_cuda and values.is_contiguous(memory_format=torch.channels_last)


def _batch_norm(layer: Any, maps: PerRun) -> PerRun:
    """Normalise, and move the running statistics, as a batch norm of torch does."""
    tensors = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    mean, variance, weight, bias = (None if tensor is None else tensor.flatten() for tensor in tensors)
    norm = partial(F.batch_norm, maps.merged, weight=weight, bias=bias, eps=layer.eps)
    moves_statistics = layer.training and layer.track_running_stats
    if moves_statistics:
        layer.num_batches_tracked.add_(1)
    if moves_statistics and layer.momentum is None:  # they are plain averages over all batches
        of_batch = torch.zeros_like(layer.running_mean), torch.zeros_like(layer.running_var)
        values = norm(*(tensor.flatten() for tensor in of_batch), training=True, momentum=1.0)
        share = (1.0 / layer.num_batches_tracked).unsqueeze(1).to(of_batch[0].dtype)
        layer.running_mean.lerp_(of_batch[0], share)
        layer.running_var.lerp_(of_batch[1], share)
    else:
        statistics = (mean, variance) if moves_statistics or not layer.training else (None, None)
        takes_batch = layer.training or mean is None
        values = norm(*statistics, training=takes_batch, momentum=layer.momentum or 0.0)
    return replace(maps, values=values, is_merged=True)


def _linear(layer: nn.Linear, values: PerRun) -> PerRun | None:
    return PerRun(linear(layer, values.apart), values.count) if len(values.shape) == 2 else None


def _by_channel(function: Callable[..., Any], maps: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply what treats every channel of maps by itself."""
    if not isinstance(maps, PerRun) or len(maps.shape) != 4:
        return None
    return tree_map(lambda values: replace(maps, values=values, is_merged=True), function(maps.merged, *args, **kwargs))


def _elementwise(function: Callable[..., Any], *args: Any, **kwargs: Any) -> PerRun | None:
    """Apply what treats every number by itself, in the form that the values have."""
    of_runs = [value for value in args if isinstance(value, PerRun)]
    others = [*kwargs.values(), *(value for value in args if not isinstance(value, PerRun))]
    if not of_runs or any(isinstance(value, Tensor | PerRun) for value in others):
        return None
    is_merged = any(value.is_merged for value in of_runs)
    shapes = [value.shape for value in of_runs]
    if len({len(shape) for shape in shapes}) > 1 or (is_merged and len({shape[1] for shape in shapes}) > 1):
        return None
    joined = ((value.merged if is_merged else value.apart) if isinstance(value, PerRun) else value for value in args)
    return replace(of_runs[0], values=function(*joined, **kwargs), is_merged=is_merged)


def _concatenation(function: Callable[..., Tensor], parts: Sequence[Any], dim: int = 0) -> PerRun | None:  # noqa: ARG001
    if dim != 1 or not all(isinstance(part, PerRun) and len(part.shape) == 4 for part in parts):
        return None

    def joined(maps: Sequence[Tensor], dim: int) -> Tensor:
        own = [values.unflatten(dim, (parts[0].count, -1)) for values in maps]
        return torch.cat(own, dim + 1).flatten(dim, dim + 1)

    return _with_channels(joined, parts)


def _channel_shuffle(function: Callable[..., Tensor], maps: Any, groups: int) -> PerRun | None:  # noqa: ARG001
    if len(maps.shape) != 4:
        return None

    def shuffled(maps_of_all: Sequence[Tensor], dim: int) -> Tensor:
        own = maps_of_all[0].unflatten(dim, (maps.count, groups, -1))
        return own.transpose(dim + 1, dim + 2).flatten(dim, dim + 2)

    return _with_channels(shuffled, [maps])


def _with_channels(rearrange: Callable[[Sequence[Tensor], int], Tensor], parts: Sequence[PerRun]) -> PerRun:
    """Rearrange merged channels, which are the dimension that is told, and keep their memory order."""
    maps = [part.merged for part in parts]
    if maps[0].is_contiguous(memory_format=torch.channels_last):
        values = rearrange([values.movedim(1, -1) for values in maps], 3).movedim(-1, 1)
    else:
        values = rearrange(maps, 1)
    return replace(parts[0], values=values, is_merged=True)


_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
_ELEMENTWISE_NAMES = (
    *("add", "iadd", "add_", "sub", "isub", "mul", "imul", "mul_", "div", "truediv", "neg", "clamp", "abs", "square"),
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardtanh", "hardswish", "hardsigmoid"),
    *("sigmoid", "tanh", "softplus", "exp"),
)
_ELEMENTWISE_FUNCTIONS = {
    getattr(place, name)
    for place in (operator, torch, F, Tensor)
    for name in _ELEMENTWISE_NAMES
    if hasattr(place, name)
}

_MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys(_POOLINGS, _by_channel),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
}
"""Rules by the type of a module. They return None for what they do not know how to join."""

_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.cat: _concatenation,
    F.channel_shuffle: _channel_shuffle,
    **dict.fromkeys(_POOLING_FUNCTIONS, _by_channel),
    **dict.fromkeys(_ELEMENTWISE_FUNCTIONS, _elementwise),
}
"""The same by function; a method's is that of :class:`torch.Tensor`."""
