"""K networks of one architecture as one: their weights are stacked, so that one call forwards them all."""

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


class StackedStudents(nn.Module):
    """K students without buffers; ``weights`` is a student whose parameters are those of all, stacked to ``(K, ...)``.

    Fully connected students are forwarded by one batched matrix product for each layer, which on a CPU costs as little
    as a third of ``torch.func.vmap`` if there are few students; all other networks are forwarded by the latter.
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(students)
        self.weights = students[0]
        everyone = [dict(student.named_parameters()) for student in students]
        for name, first in everyone[0].items():
            stacked = torch.stack([parameters[name].detach() for parameters in everyone])
            owner, _, own_name = name.rpartition(".")
            setattr(self.weights.get_submodule(owner), own_name, nn.Parameter(stacked, first.requires_grad))
        self._layers = _fully_connected_layers(self.weights)

    def forward(self, images: Tensor) -> Tensor:
        """Forward every student's own images; from ``(K · N, channels, height, width)`` to logits ``(K · N, C)``."""
        return self._forward_apart(images.unflatten(0, (self.count, -1))).flatten(0, 1)

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure every student on the same images: accuracy, mean cross-entropy and confidence, ``(K,)`` each."""
        self.eval()
        chunks = images.chunks(max(1, _EVALUATION_ROWS // self.count))
        logits = torch.cat([self._forward_shared(chunk) for chunk in chunks], dim=1)
        self.train()
        labels = images.labels.expand(self.count, -1)
        accuracy = (logits.argmax(dim=-1) == labels).float().mean(dim=1)
        log_probabilities = log_softmax(logits.flatten(0, 1)).unflatten(0, logits.shape[:2])
        of_labels = log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return Evaluation(accuracy, -of_labels.mean(dim=1), of_labels.exp().mean(dim=1))

    def _forward_apart(self, images: Tensor) -> Tensor:
        """Return logits ``(K, N, C)`` of images ``(K, N, ...)``."""
        if self._layers is None:
            return vmap(self._call)(self._parameters_by_name(), images)
        values = images.flatten(2)
        for layer in self._layers:
            values = _linear(layer, values) if isinstance(layer, nn.Linear) else layer(values)
        return values

    def _forward_shared(self, images: Tensor) -> Tensor:
        """Return logits ``(K, N, C)`` of the same images ``(N, ...)`` for all."""
        if self._layers is None:
            return vmap(self._call, in_dims=(0, None))(self._parameters_by_name(), images)
        return self._forward_apart(images.expand(self.count, *images.shape))

    def _call(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(self.weights, parameters, (images,))

    def _parameters_by_name(self) -> dict[str, Tensor]:
        return dict(self.weights.named_parameters())


def _linear(layer: nn.Linear, values: Tensor) -> Tensor:
    weights = layer.weight.transpose(1, 2)
    return torch.bmm(values, weights) if layer.bias is None else torch.baddbmm(layer.bias.unsqueeze(1), values, weights)


def _fully_connected_layers(network: nn.Module) -> list[nn.Module] | None:
    """Return the layers after the flattening of a plain fully connected network; None for any other."""
    if type(network) is not nn.Sequential:
        return None
    layers = list(network)
    flattening = layers[0] if layers else None
    if not isinstance(flattening, nn.Flatten) or (flattening.start_dim, flattening.end_dim) != (1, -1):
        return None
    plain = all(type(layer) in (nn.Linear, *_ELEMENTWISE) for layer in layers[1:])
    return layers[1:] if plain else None
