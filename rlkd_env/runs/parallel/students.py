"""K networks of one architecture as one: their weights stacked, so that one call forwards them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rlkd_env.data import ImageSet
from rlkd_env.instances.outputs import log_softmax
from rlkd_env.tasks import Evaluation

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_EVALUATION_ROWS = 16384


class StackedStudents:
    """K students without buffers whose weights are stacked along a new first dimension.

    Fully connected ones are forwarded by one batched matrix product a layer, which on a CPU costs up to a third of
    what ``torch.func.vmap`` does for few students; any other network by the latter.

    Args:
        students: of one architecture; the first stays in use as the network that the weights are put into.

    Attributes:
        parameters: by name, ``(K, ...)`` each, leaves of autograd.
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        self.count = len(students)
        self._network = students[0]
        named = [dict(student.named_parameters()) for student in students]
        self.parameters = {
            name: nn.Parameter(torch.stack([parameters[name].detach() for parameters in named]), first.requires_grad)
            for name, first in named[0].items()
        }
        self._layers = _fully_connected_layers(self._network)

    def forward(self, images: Tensor) -> Tensor:
        """Forward every student's own images ``(K, N, channels, height, width)`` in training; returns ``(K, N, C)``."""
        if self._layers is None:
            return vmap(self._call)(self.parameters, images)
        values = images.flatten(2)
        for name, layer in self._layers:
            values = self._linear(name, values) if isinstance(layer, nn.Linear) else layer(values)
        return values

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure every student on the same images: accuracy, mean cross-entropy and confidence, ``(K,)`` each."""
        self._network.eval()
        chunks = images.chunks(max(1, _EVALUATION_ROWS // self.count))
        logits = torch.cat([self._forward_shared(chunk) for chunk in chunks], dim=1)
        self._network.train()
        labels = images.labels.expand(self.count, -1)
        accuracy = (logits.argmax(dim=-1) == labels).float().mean(dim=1)
        log_probabilities = log_softmax(logits.flatten(0, 1)).unflatten(0, logits.shape[:2])
        of_labels = log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return Evaluation(accuracy, -of_labels.mean(dim=1), of_labels.exp().mean(dim=1))

    def _forward_shared(self, images: Tensor) -> Tensor:
        if self._layers is None:
            return vmap(self._call, in_dims=(0, None))(self.parameters, images)
        return self.forward(images.expand(self.count, *images.shape))

    def _call(self, parameters: dict[str, nn.Parameter], images: Tensor) -> Tensor:
        return functional_call(self._network, {**parameters}, (images,))

    def _linear(self, name: str, values: Tensor) -> Tensor:
        weights = self.parameters[f"{name}.weight"].transpose(1, 2)
        bias = self.parameters.get(f"{name}.bias")
        return torch.bmm(values, weights) if bias is None else torch.baddbmm(bias.unsqueeze(1), values, weights)


def _fully_connected_layers(network: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return the layers by name, after the flattening, of a plain fully connected network; None for any other."""
    if type(network) is not nn.Sequential:
        return None
    layers = list(network.named_children())
    flattening = layers[0][1] if layers else None
    if not isinstance(flattening, nn.Flatten) or (flattening.start_dim, flattening.end_dim) != (1, -1):
        return None
    plain = all(type(layer) in (nn.Linear, *_ELEMENTWISE) for _, layer in layers[1:])
    return layers[1:] if plain else None
