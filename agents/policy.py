"""A learned policy as a plain PyTorch module, usable in any KD code without Gymnasium and stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.policy_files import DESCRIPTION_FILE, LAYERS, WEIGHTS_FILE, Affine, read_policy, write_policy
from rlkd_env.outputs import InstanceOutputs
from rlkd_env.state import InstanceState
from rlkd_env.temperature import ActionMap, Temperature, TemperatureRange

KIND = "temperature"
"""Of a description that does not tell its kind, too."""


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
        description = {
            "features": list(self.features),
            "action_map": {"scale": self.action_map.scale, **asdict(self.action_map.range)},
        }
        write_policy(Path(folder), self.network, description)

    @classmethod
    def load(cls, path: Path | str) -> TemperaturePolicy:
        """Read a saved policy; nothing is unpickled.

        Args:
            path: the folder, or one of its two files.

        Raises:
            UsageError: if a file is missing, damaged, of another format or kind, or does not belong to the other.
        """

        def create(layers: Sequence[nn.Module], description: dict[str, Any]) -> TemperaturePolicy:
            bounds = description["action_map"]
            action_map = ActionMap(TemperatureRange(bounds["minimum"], bounds["maximum"]), bounds["scale"])
            return cls(layers, description["features"], action_map)

        return read_policy(path, KIND, create)


__all__ = ["DESCRIPTION_FILE", "LAYERS", "WEIGHTS_FILE", "Affine", "TemperaturePolicy"]
