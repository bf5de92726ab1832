"""A learned policy as a plain PyTorch module, usable in any KD code without Gymnasium and stable-baselines3."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.files import UNTOLD_KIND
from agents.learned.network_policy import NetworkPolicy
from agents.rules.base import Rule
from agents.rules.create import check_function, recreate_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.features import Feature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import described_schedule
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.utils.registry import Registry

if TYPE_CHECKING:
    from typing_extensions import Self


class TemperaturePolicy(NetworkPolicy):
    """State of an instance in, its temperature out.

    Args:
        layers: network from ``(N, d)`` states to actions in ``[-1, 1]``, ``(N, 1)``, or ``(N, 2)`` for teacher and
            student apart.
        features: the d features of the state in order, by name or as objects.
        action_map: the map from actions to temperatures, chosen from a range, or around a rule or another policy, of
            which this one keeps a copy.

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
        if isinstance(action_map, ResidualMap) and isinstance(action_map.around, nn.Module):
            action_map = replace(action_map, around=deepcopy(action_map.around))
        self.action_map = action_map
        self.around = getattr(action_map, "around", None)  # so that a module goes to other devices along

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
            ValueError: if the policy acts around a rule or a policy, for which a state is not enough.
        """
        if isinstance(self.action_map, ResidualMap):
            raise ValueError("this policy acts around another one, which reads more than the state: use choose()")
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

    def settings(self) -> dict[str, Any]:
        """Return features and action map as plain values; a rule that is acted around must have a name."""
        return {"features": list(self.features), "action_map": _describe_map(self.action_map)}

    @classmethod
    def of_settings(cls, layers: Sequence[nn.Module], settings: dict[str, Any]) -> Self:
        """Make the policy of its layers and :meth:`settings`."""
        policy = cls(layers, settings["features"], _recreate_map(settings["action_map"]))
        policy._check_shapes()
        return policy

    def stored(self) -> nn.Module:
        """Return the network, and within it, as ``around``, those of a policy that is acted around."""
        if not isinstance(self.around, NetworkPolicy):
            return self.network
        return nn.Sequential(OrderedDict([*self.network.named_children(), ("around", self.around.stored())]))

    @torch.no_grad()
    def _check_shapes(self) -> None:
        try:
            shape = tuple(self.network(torch.zeros(1, len(self.features))).shape)
        except RuntimeError:
            shape = ()
        if shape not in ((1, 1), (1, 2)):
            raise ValueError("a network that does not make one or two actions of its features")


KINDS: Registry[type[TemperaturePolicy | CoefficientPolicy]] = Registry(
    "kind of policy", {kind.kind: kind for kind in (TemperaturePolicy, CoefficientPolicy)}
)
"""The kinds of saved policies, one of which may act around one of any."""


def _describe_map(action_map: ActionMap | ResidualMap) -> dict[str, Any]:
    bounds = asdict(action_map.range)
    if isinstance(action_map, ActionMap):
        return {"scale": action_map.scale, **bounds}
    around = action_map.around
    description = around.description() if isinstance(around, NetworkPolicy) else getattr(around, "description", None)
    if description is None:
        raise UsageError(f"a policy around {around} cannot be saved, only one around a rule with a name or a policy")
    return {"around": description, "width": action_map.width, "level": action_map.level, **bounds}


def _recreate_map(description: dict[str, Any]) -> ActionMap | ResidualMap:
    bounds = TemperatureRange(description["minimum"], description["maximum"])
    if "around" not in description:
        return ActionMap(bounds, description["scale"])
    level = description.get("level", "free")  # as all were when files did not tell
    return ResidualMap(_recreate_around(dict(description["around"])), bounds, description["width"], level)


def _recreate_around(description: dict[str, Any]) -> Rule | NetworkPolicy:
    if "kind" not in description:
        if description["rule"] == "anneal":
            description["arguments"] = described_schedule(description["arguments"])
        return check_function(recreate_rule(description))
    return KINDS[description["kind"]].from_description(description)
