"""A learned policy as a plain PyTorch module, usable in any KD code without Gymnasium and stable-baselines3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.files import load_weights, read_json, read_tensors, write_json, write_tensors
from rlkd_env.outputs import InstanceOutputs
from rlkd_env.registry import Registry, UsageError
from rlkd_env.state import InstanceState
from rlkd_env.temperature import ActionMap, Temperature, TemperatureRange

POLICY_FORMAT = 1
WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"


class Affine(nn.Module):
    """Scale and shift every feature: a frozen normalisation.

    Args:
        num_features: width of the input ``(N, num_features)``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("shift", torch.zeros(num_features))
        self.num_features = num_features

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values * scale + shift``."""
        return values * self.scale + self.shift


LAYERS: Registry[Callable[..., nn.Module]] = Registry("layer")
"""The layers a saved policy may have, by the name in its description."""
for _layer in (nn.Linear, Affine, nn.Hardtanh, nn.Tanh, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.GELU):
    LAYERS.register(_layer.__name__)(_layer)
_LAYER_ARGUMENTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    Affine: ("num_features",),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.ELU: ("alpha",),
    nn.LeakyReLU: ("negative_slope",),
}


class TemperaturePolicy(nn.Module):
    """State of an instance in, its temperature out.

    Args:
        layers: network from ``(N, d)`` states to ``(N, 1)`` actions in ``[-1, 1]``.
        features: names of the d features of the state, in order.
        action_map: from actions to temperatures.

    Example:
        >>> policy = TemperaturePolicy.load("runs/digits")  # doctest: +SKIP
        >>> temperature = policy.temperatures(student_logits, teacher_logits, labels, progress)  # doctest: +SKIP
    """

    def __init__(self, layers: Sequence[nn.Module], features: Sequence[str], action_map: ActionMap) -> None:
        super().__init__()
        self.network = nn.Sequential(*layers)
        self.state = InstanceState(features)
        self.action_map = action_map
        self.requires_grad_(False)
        self.eval()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that the policy reads."""
        return self.state.names

    def temperatures_from_state(self, state: Tensor) -> Tensor:
        """Return the temperatures ``(N,)`` for states ``(N, d)``."""
        return self.action_map.to_temperature(self.network(state).squeeze(-1))

    @torch.no_grad()
    def temperatures(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0
    ) -> Tensor:
        """Choose the temperatures of a batch in any KD code.

        Args:
            student_logits: ``(N, C)``.
            teacher_logits: ``(N, C)``.
            labels: ``(N,)`` integer classes.
            progress: share of the training that is over, in ``[0, 1]``.

        Returns:
            ``(N,)``.
        """
        outputs = InstanceOutputs(student_logits, teacher_logits, labels, progress)
        return self.temperatures_from_state(self.state(outputs))

    @torch.no_grad()
    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a :class:`~rlkd_env.run.DistillationRun`."""
        return Temperature.shared(self.temperatures_from_state(self.state(outputs)))

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder, each atomically."""
        folder = Path(folder)
        write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())
        description = {
            "format": POLICY_FORMAT,
            "features": list(self.features),
            "action_map": {"scale": self.action_map.scale, **asdict(self.action_map.range)},
            "layers": [_describe(layer) for layer in self.network],
            "weights_sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
            "versions": {"torch": torch.__version__},
        }
        write_json(folder / DESCRIPTION_FILE, description)

    @classmethod
    def load(cls, path: Path | str) -> TemperaturePolicy:
        """Read a saved policy; nothing is unpickled.

        Args:
            path: the folder, or one of its two files.

        Raises:
            UsageError: if a file is missing, damaged, of another format or does not belong to the other.
        """
        path = Path(path)
        folder = path.parent if path.name in (WEIGHTS_FILE, DESCRIPTION_FILE) else path
        description, weights = read_json(folder / DESCRIPTION_FILE), folder / WEIGHTS_FILE
        if not isinstance(description, dict) or description.get("format") != POLICY_FORMAT:
            raise UsageError(f"{folder / DESCRIPTION_FILE} is not a policy of format {POLICY_FORMAT}")
        tensors, _ = read_tensors(weights)
        if hashlib.sha256(weights.read_bytes()).hexdigest() != description.get("weights_sha256"):
            raise UsageError(f"{weights} is damaged or does not belong to {folder / DESCRIPTION_FILE}")
        try:
            bounds = description["action_map"]
            action_map = ActionMap(TemperatureRange(bounds["minimum"], bounds["maximum"]), bounds["scale"])
            layers = [LAYERS[layer["type"]](**layer["arguments"]) for layer in description["layers"]]
            policy = cls(layers, description["features"], action_map)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{folder / DESCRIPTION_FILE} is damaged: {error!r}") from None
        load_weights(policy.network, tensors, weights)
        return policy


def _describe(layer: nn.Module) -> dict[str, Any]:
    if type(layer).__name__ not in LAYERS:
        raise UsageError(f"a policy with the layer {layer} cannot be saved")
    return {
        "type": type(layer).__name__,
        "arguments": {name: getattr(layer, name) for name in _LAYER_ARGUMENTS.get(type(layer), ())},
    }
