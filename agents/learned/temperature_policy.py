"""A learned policy as a plain PyTorch module, usable in any KD code without Gymnasium and stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from agents.learned.files import UNTOLD_KIND
from agents.learned.network_policy import NetworkPolicy
from agents.rules.create import check_function, recreate_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.features import Feature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import described_schedule
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import Temperature, TemperatureRange

if TYPE_CHECKING:
    from typing_extensions import Self


class TemperaturePolicy(NetworkPolicy):
    """State of an instance in, its temperature out.

    Args:
        layers: network from ``(N, d)`` states to actions in ``[-1, 1]``, ``(N, 1)``, or ``(N, 2)`` for teacher and
            student apart.
        features: the d features of the state in order, by name or as objects.
        action_map: the map from actions to temperatures, chosen from a range or around a rule.

    Example:
        >>> layers = [nn.Linear(1, 1), nn.Hardtanh()]
        >>> TemperaturePolicy(layers, ("student_performance",), ActionMap(TemperatureRange(1.0, 9.0))).save("policy")
        >>> policy = TemperaturePolicy.load("policy")
        >>> student_logits, teacher_logits, labels = torch.randn(64, 10), torch.randn(64, 10), torch.arange(64) % 10
        >>> policy.temperatures(student_logits, teacher_logits, labels, progress=0.5).shape
        torch.Size([64])
    """

    kind = UNTOLD_KIND

    def __init__(
        self, layers: Sequence[nn.Module], features: Sequence[str | Feature], action_map: ActionMap | ResidualMap
    ) -> None:
        super().__init__(layers)
        self.state = InstanceState(features)
        self.action_map = action_map

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that the policy reads."""
        return self.state.names

    @property
    def has_gradient(self) -> bool:
        """Whether the temperatures carry gradients, as those of a rule that reads the student's logits may."""
        return isinstance(self.action_map, ResidualMap) and self.action_map.has_gradient

    def temperatures_from_state(self, state: Tensor) -> Tensor:
        """Return the temperatures for states ``(N, d)``: ``(N,)``, or ``(N, 2)`` for teacher and student apart.

        Raises:
            ValueError: if the policy acts around a rule, for which a state is not enough.
        """
        if isinstance(self.action_map, ResidualMap):
            raise ValueError("this policy acts around a rule, which reads more than the state: use choose()")
        return self.action_map.to_temperature(self.network(state).squeeze(-1))

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a :class:`~rlkd_env.runs.run.DistillationRun`."""
        with torch.no_grad():
            action = self.action(outputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.has_gradient):
            return self.action_map.temperature(action, outputs)

    def action(self, outputs: InstanceOutputs) -> Tensor:
        """Return the actions of a batch, ``(N, 1)`` or ``(N, 2)``."""
        action: Tensor = self.network(self.state(outputs))
        return action

    def description(self) -> dict[str, Any]:
        """Return features and action map as plain values; what is acted around must be a rule with a name."""
        return {"features": list(self.features), "action_map": _describe_map(self.action_map)}

    @classmethod
    def from_description(cls, layers: Sequence[nn.Module], description: dict[str, Any]) -> Self:
        """Make the policy that a description tells."""
        return cls(layers, description["features"], _recreate_map(description["action_map"]))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved policy, as :meth:`NetworkPolicy.load`, and check the shape of its actions."""
        policy = super().load(path)
        policy._check_shapes(Path(path))
        return policy

    @torch.no_grad()
    def _check_shapes(self, path: Path) -> None:
        try:
            shape = tuple(self.network(torch.zeros(1, len(self.features))).shape)
        except RuntimeError:
            shape = ()
        if shape not in ((1, 1), (1, 2)):
            raise UsageError(f"{path} is damaged: its network does not make one or two actions of its features")


def _describe_map(action_map: ActionMap | ResidualMap) -> dict[str, Any]:
    bounds = asdict(action_map.range)
    if isinstance(action_map, ActionMap):
        return {"scale": action_map.scale, **bounds}
    description = getattr(action_map.around, "description", None)
    if description is None:
        raise UsageError(f"a policy around {action_map.around} cannot be saved, only one around a rule that has a name")
    return {"around": description, "width": action_map.width, **bounds}


def _recreate_map(description: dict[str, Any]) -> ActionMap | ResidualMap:
    bounds = TemperatureRange(description["minimum"], description["maximum"])
    if "around" not in description:
        return ActionMap(bounds, description["scale"])
    around = dict(description["around"])
    if around["rule"] == "anneal":
        around["arguments"] = described_schedule(around["arguments"])
    return ResidualMap(check_function(recreate_rule(around)), bounds, description["width"])
