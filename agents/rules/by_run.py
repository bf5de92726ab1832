"""One policy for several runs at once, each of which has a rule of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.rules.base import number_type
from agents.rules.schedules import Anneal
from agents.rules.simple import FixedTemperature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.policy import PolicyModule
from rlkd_env.instances.schedule import SHAPES, AnnealedTemperature
from rlkd_env.instances.temperature import Policy, Temperature


class PolicyByRun(PolicyModule):
    """K policies for K runs whose batches stand one after another; run k has the temperatures of policy k.

    Fixed and annealed temperatures are computed for all of their runs at once, bit for bit those of the rules alone;
    other policies are asked one after the other.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        super().__init__()
        self.num_runs = len(policies)
        groups: dict[Any, list[int]] = {}  # of runs, by what the rules must have in common that are computed together
        for run, policy in enumerate(policies):
            own_spread = policy.schedule.own_spread if isinstance(policy, Anneal) else None
            groups.setdefault((type(policy), own_spread) if type(policy) in _TOGETHER else run, []).append(run)
        self._parts = []
        for runs in groups.values():
            together = _TOGETHER.get(type(policies[runs[0]]), _only)
            self._parts.append((_Copied(torch.tensor(runs)), together([policies[run] for run in runs])))
        # Named as parts, so that a policy that learns along is seen and refused.
        self._given = nn.ModuleList(policy for policy in policies if isinstance(policy, nn.Module))

    @property
    def has_gradient(self) -> bool:
        """Whether temperatures of some run carry gradients."""
        return any(getattr(policy, "has_gradient", False) for _, policy in self._parts)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures of all instances ``(K·B,)``.

        Raises:
            ValueError: if there are not as many runs as policies.
        """
        if outputs.num_runs != self.num_runs:
            raise ValueError(f"a policy for {self.num_runs} runs got the outputs of {outputs.num_runs}")
        if len(self._parts) == 1:
            return self._parts[0][1](outputs)
        runs = [chosen.on(outputs.labels.device) for chosen, _ in self._parts]
        found = [policy(outputs.of_runs(chosen)) for chosen, (_, policy) in zip(runs, self._parts, strict=True)]
        back = torch.cat(runs).argsort()

        def in_order(parts: list[Tensor]) -> Tensor:
            by_run = torch.cat([part.unflatten(0, (len(chosen), -1)) for part, chosen in zip(parts, runs, strict=True)])
            return by_run[back].flatten()

        student = in_order([one.student for one in found])
        if all(one.is_shared for one in found):
            return Temperature.shared(student)
        factors = [one.student * one.teacher if one.factor is None else one.factor for one in found]
        return Temperature(in_order([one.teacher for one in found]), student, in_order(factors))


class _Copied:
    """A tensor that is copied to a device once, as a copy in every step would make the host wait."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._copies = values, dict[torch.device, Tensor]()

    def on(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = self._values.to(device)
        return self._copies[device]


class _FixedByRun(PolicyModule):
    """A fixed temperature for each of k runs."""

    def __init__(self, rules: Sequence[FixedTemperature]) -> None:
        super().__init__()
        self._temperatures = _Copied(torch.tensor([rule.temperature for rule in rules], dtype=torch.float64))

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        by_run = self._temperatures.on(outputs.labels.device).to(number_type(outputs))
        return Temperature.shared(by_run.repeat_interleave(len(outputs.labels) // len(by_run)))


class _AnnealedByRun(PolicyModule):
    """Annealed temperatures for each of k runs, which follow the logits' own spread with the same power."""

    def __init__(self, rules: Sequence[Anneal]) -> None:
        super().__init__()
        schedules = [rule.schedule for rule in rules]
        self._shapes = {
            shape: _Copied(
                torch.tensor([float(schedule.shape == shape) for schedule in schedules], dtype=torch.float64)
            )
            for shape in dict.fromkeys(schedule.shape for schedule in schedules)
        }
        self._schedules, self._terms = schedules, dict[tuple[bool, float, float], _Copied]()

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        unit, progress = outputs.teacher_unit, float(outputs.progress)
        kind = outputs.are_regions, outputs.epochs, outputs.updates / outputs.num_classes
        if kind not in self._terms:
            self._terms[kind] = _Copied(_terms_at_the_ends(self._schedules, *kind))
        first, last = self._terms[kind].on(unit.device)
        share = sum(part.on(unit.device) * SHAPES[shape](progress) for shape, part in self._shapes.items())
        terms = (1.0 - share) * first + share * last
        constant, relative = terms.to(unit.dtype).unsqueeze(-1).unbind()
        by_run = (constant + relative * unit.log()).exp()
        slots = len(outputs.labels) // len(by_run)
        temperature = by_run.expand(-1, slots).flatten().to(number_type(outputs))
        return self._schedules[0].around(temperature, outputs)  # the power is the same in all of them


def _terms_at_the_ends(
    schedules: Sequence[AnnealedTemperature], are_regions: bool, epochs: float, updates_per_class: float
) -> Tensor:
    """Return the two terms of k schedules at the start and at the end, ``(2, 2, k)``."""
    run = (are_regions, epochs, updates_per_class)
    ends = [[schedule.terms(end, *run) for schedule in schedules] for end in (0.0, 1.0)]
    return torch.tensor(ends, dtype=torch.float64).transpose(1, 2)


def _only(policies: Sequence[Policy]) -> Policy:
    (policy,) = policies
    return policy


_TOGETHER: dict[type, Callable[[Any], Policy]] = {FixedTemperature: _FixedByRun, Anneal: _AnnealedByRun}
"""The rules that are computed for several runs at once, by what computes them."""
