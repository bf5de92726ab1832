"""Small policies, around a rule or not, and what they are compared by."""

from __future__ import annotations

import torch
from torch import nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import RULES
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature, TemperatureRange

BOUNDS = TemperatureRange(0.5, 20.0)


FUNCTIONS = sorted(name for name, kind in RULES.items() if kind.is_function)


def batch(count: int = 9) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(1)
    student, teacher = 4.0 * torch.randn(2, count, 10, generator=generator)
    return InstanceOutputs(student, teacher, torch.arange(count) % 10, progress=0.25)


def policy(action_map: ActionMap | ResidualMap, columns: int = 1) -> TemperaturePolicy:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, columns), nn.Hardtanh()]
    return TemperaturePolicy(layers, ("student_performance", "progress"), action_map)


def assert_same(left: Temperature, right: Temperature) -> None:
    for name in ("teacher", "student", "factor"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0.0)


def small_policy() -> TemperaturePolicy:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1), nn.Hardtanh()]
    return TemperaturePolicy(layers, ("student_performance", "progress"), ActionMap(TemperatureRange(1.0, 9.0)))
