"""Frozen networks of fewer operations: convolutions take in the batch norms and activations after them."""

from __future__ import annotations

import copy
import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse


def fold_batch_norms(network: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy of a network in evaluation mode with its batch norms folded into the preceding convolutions.

    A network without batch norms, one that torch.fx cannot trace, and one whose folded logits differ by more than 1e-3
    of their size are returned unchanged.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        folded = fuse(network)
        is_same = _is_same(folded, network, example_images(network, image_shape), 1e-3)
    except Exception:  # torch.fx raises many kinds for code that it cannot follow
        return network
    return folded.requires_grad_(False) if is_same else network


def example_images(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Return two images ``(2, channels, height, width)`` on a network's device."""
    device = next(network.parameters()).device
    return torch.linspace(-1.0, 1.0, 2 * math.prod(image_shape), device=device).view(2, *image_shape)


@torch.no_grad()
def _is_same(network: nn.Module, other: nn.Module, images: Tensor, tolerance: float) -> bool:
    """Return whether two networks' logits differ by no more than a share of their size; waits for the device."""
    found, expected = network(images), other(images)
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


class ActivatedConvolution(nn.Module):
    """A convolution on a GPU, perhaps the sum with something else, and ReLU: one kernel of cuDNN's.

    Args:
        layer: the convolution, whose padding is of zeros.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._how: tuple[Any, ...] = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, maps: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolve maps ``(N, channels, height, width)``, add maps like the result, and clip below at 0."""
        is_reduced = torch.is_autocast_enabled(maps.device.type)  # which knows nothing of these kernels
        dtype = torch.get_autocast_dtype(maps.device.type) if is_reduced else self.weight.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        weight = self.weight.to(dtype)
        if added is None:
            return torch.cudnn_convolution_relu(maps.to(dtype), weight, bias, *self._how)
        return torch.cudnn_convolution_add_relu(maps.to(dtype), weight, added.to(dtype), 1.0, bias, *self._how)


def fuse_activations(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of a folded network on a GPU whose convolutions compute the ReLU after them, and a sum before it.

    One that is not traced, and one whose logits on the images then differ by more than a twentieth of their size, which
    is more than bfloat16 rounds, are returned unchanged.
    """
    if not isinstance(network, fx.GraphModule):
        return network
    fused = copy.deepcopy(network)
    for node in list(fused.graph.nodes):
        found = _convolution_before(node, fused)
        if found is None:
            continue
        convolution, added = found
        owner, _, name = str(convolution.target).rpartition(".")
        layer = fused.get_submodule(str(convolution.target))
        setattr(fused.get_submodule(owner), name, ActivatedConvolution(layer))  # type: ignore[arg-type]
        with fused.graph.inserting_before(node):
            activated = fused.graph.call_module(str(convolution.target), (convolution.args[0], *added))
        node.replace_all_uses_with(activated)
    fused.graph.eliminate_dead_code()
    fused.recompile()
    fused.eval()
    try:
        return fused if _is_same(fused, network, images, 0.05) else network
    except RuntimeError:  # cuDNN has no kernel for it
        return network


def _convolution_before(node: fx.Node, network: fx.GraphModule) -> tuple[fx.Node, tuple[fx.Node, ...]] | None:
    """Return the convolution that a node is the ReLU of, and what is added to it before; None if there is none."""
    if not _is_relu(node, network):
        return None
    source: Any = node.args[0]
    if _is_convolution(source, network):
        return source, ()
    if source.op != "call_function" or source.target not in _SUMS or len(source.users) != 1 or len(source.args) != 2:
        return None
    for place, summand in enumerate(source.args):
        other = source.args[1 - place]
        if _is_convolution(summand, network) and isinstance(other, fx.Node):
            return summand, (other,)
    return None


_SUMS = (operator.add, operator.iadd, torch.add)


def _is_relu(node: fx.Node, network: fx.GraphModule) -> bool:
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in (F.relu, torch.relu)) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )


def _is_convolution(node: Any, network: fx.GraphModule) -> bool:
    """Return whether a node is a convolution that nothing else asks for."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
        return False
    layer = network.get_submodule(str(node.target))
    if type(layer) is not nn.Conv2d or layer.groups > 1:  # PyTorch has kernels of its own for depthwise ones
        return False
    is_called_once = len(network.graph.find_nodes(op="call_module", target=node.target)) == 1
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and is_called_once
