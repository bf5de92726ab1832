"""Who sets the temperatures: a rule, a saved policy, or an agent that learns, perhaps around one of the two.

Each choice builds what acts; heavy modules are imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import ANNEAL_IMAGES, ActionScale, AroundLevel
from rlkd_env.utils.options import OptionValue

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv
    from stable_baselines3.common.base_class import BaseAlgorithm
    from torch import nn

    from agents.learned.network_policy import NetworkPolicy
    from agents.rules.base import Rule
    from rlkd_env.instances.temperature import Policy
    from rlkd_env.runs.run import DistillationRun

ANNEAL = "anneal"
"""The rule that sets temperatures if nothing else is chosen, and that agents act around."""
PRETRAINED = "pretrained"
"""Name, as an agent and as a policy, of the policy that comes with the package."""
_SCHEDULES = (ANNEAL, "linear", "cosine", "dts")
"""Rules that go from a first temperature to a last one."""


@dataclass(frozen=True)
class RuleChoice:
    """A rule acts; a fixed temperature with the suffix s is in standard deviations of the teacher's logits."""

    name: str
    options: Mapping[str, OptionValue]
    fixed_temperature: float | str

    @property
    def label(self) -> str:
        """Short name, for folders and summaries."""
        return _short(self.name)

    def as_options(self) -> dict[str, Any]:
        """Return the options of ``rlkd distill`` that make this choice."""
        fixed = {"fixed_temperature": self.fixed_temperature} if self.name == "fixed" else {}
        return {"rule": self.name, **fixed, **({"rule_options": dict(self.options)} if self.options else {})}

    def policy(self, run: DistillationRun, seed: int) -> Policy:
        """Return the rule for a run, which makes its own whenever it starts."""
        run.create_policy = partial(self.create, run)
        return self.create(run, seed)  # a wrong option is told now

    def create(self, run: DistillationRun, seed: int) -> Rule:
        """Return the rule."""
        from agents.rules.create import RuleSetting, create_rule

        setting = RuleSetting(
            run.temperature_range, self.temperature(run), run.teacher_deviation, run.task.num_logits(run.splits), seed
        )
        return create_rule(self.name, self.options, setting)

    def temperature(self, run: DistillationRun) -> float:
        """Return the fixed temperature."""
        from agents.rules.base import check_temperature
        from rlkd_env.instances.temperature import parse_bound

        return check_temperature(parse_bound(self.fixed_temperature, run.teacher_deviation))

    def members(self, temperatures: Sequence[str]) -> dict[str, RuleChoice]:
        """Return the rule at other temperatures, by the names that these give.

        The rule fixed takes one temperature, such as 4, which gives ``T=4``; a schedule takes those of its start and
        its end, such as 3s:0.35s, which give ``3s-to-0.35s``.
        """
        from rlkd_env.instances.temperature import parse_bound

        found: dict[str, RuleChoice] = {}
        for text in temperatures:
            ends = [end.strip() for end in text.split(":")]
            if self.name not in ("fixed", *_SCHEDULES) or len(ends) != (1 if self.name == "fixed" else 2):
                raise UsageError(
                    f"{text!r} is no member with the rule {self.name}: name temperatures such as 4 or 2s with the rule "
                    f"fixed, or FIRST:LAST such as 3s:0.35s with {', '.join(_SCHEDULES)}"
                )
            for end in ends:
                parse_bound(end, 1.0)
            if self.name == "fixed":
                name, member = temperature_label(text), replace(self, options={}, fixed_temperature=text)
            else:
                name, options = "-to-".join(ends), dict(zip(("first", "last"), ends, strict=True))
                member = replace(self, options={**self.options, **options})
            if name in found:
                raise UsageError(f"two members have the temperatures {text}")
            found[name] = member
        return found

    def sweep(self, count: int, lowest: float, highest: float) -> list[str]:
        """Return the temperatures of so many members, with three significant digits.

        Those of the rule fixed go from the lowest to the highest in equal ratios. Annealed ones are the rule's own,
        both ends divided or multiplied by up to 2, likewise in equal ratios.
        """
        if self.name == "fixed":
            return [f"{lowest * (highest / lowest) ** (number / (count - 1)):.3g}" for number in range(count)]
        ends = [self.options.get(end) or usual for end, usual in zip(("first", "last"), ANNEAL_IMAGES, strict=True)]
        factors = [2.0 ** (number / (count // 2) - 1.0) for number in range(count)]
        return [":".join(_multiplied(end, factor) for end in ends) for factor in factors]

    def swept(self) -> RuleChoice:
        """Return the rule whose members a sweep has: short annealed runs start colder, as those of the rule itself."""
        if self.name != ANNEAL or self.options.get("first"):
            return self
        return replace(self, options={"cold_start": True, **self.options})

    def check_sweep(self) -> None:
        """Check that the rule is one whose members can be chosen by their number alone."""
        if self.name not in ("fixed", ANNEAL):
            raise UsageError(
                f"the members of a population with the rule {self.name} would all be the same student: name their "
                f"temperatures (--members), or choose the rule fixed or {ANNEAL}"
            )


@dataclass(frozen=True)
class SavedPolicy:
    """A saved policy, by its path or the name ``"pretrained"``, acts frozen."""

    path: str

    @property
    def label(self) -> str:
        """Short name, for folders and summaries."""
        return PRETRAINED if self.path == PRETRAINED else "policy"

    def policy(self, run: DistillationRun, seed: int) -> Policy:
        """Return the policy for a run."""
        return self.create(run, seed)

    def create(self, run: DistillationRun, seed: int) -> NetworkPolicy | Rule:  # noqa: ARG002
        """Return the policy on the run's device."""
        from agents.learned.loading import load_policy

        return _fitting(load_policy(self.path).to(run.device), run, self.path)


@dataclass(frozen=True)
class GivenPolicy:
    """A rule or policy acts that Python code has given as an object.

    A module is copied; if it is a rule, the copy is the run's own, which learns along if the rule does.
    """

    given: Policy
    label: str

    def policy(self, run: DistillationRun, seed: int) -> Policy:  # noqa: ARG002
        """Return what acts on the run's device."""
        from torch import nn

        from agents.rules.base import Rule

        if not isinstance(self.given, nn.Module):
            return self.given
        policy = _fitting(deepcopy(self.given).to(run.device), run, self.label)
        if isinstance(policy, Rule):
            run.create_policy = lambda _: deepcopy(policy)
        return policy


PolicyT = TypeVar("PolicyT", bound="nn.Module")


def _fitting(policy: PolicyT, run: DistillationRun, name: str) -> PolicyT:
    """Return a policy that can read the run's instances."""
    from agents.learned.temperature_policy import TemperaturePolicy

    for part in policy.modules():  # the policy itself, and those that it acts around
        if isinstance(part, TemperaturePolicy):
            try:
                part.state.check(has_regions=not run.task.follows_logits)
            except UsageError as error:
                raise UsageError(f"the policy {name}: {error}") from None
    return policy


@dataclass(frozen=True)
class Around:
    """How an agent acts around a rule or a policy: as :class:`~rlkd_env.instances.actions.ResidualMap` says."""

    width: float
    level: AroundLevel


@dataclass(frozen=True)
class AgentChoice:
    """An agent learns online, after a warm-up.

    The warm-up is a rule's or a saved policy's. The agent either acts around that, or chooses temperatures of its own,
    to which ``scale`` maps its actions.
    """

    name: str
    options: Mapping[str, OptionValue]
    discount: float
    warm_up: RuleChoice | SavedPolicy
    acts_around: Around | None
    scale: ActionScale

    @property
    def label(self) -> str:
        """Short name, for folders and summaries."""
        return f"{_short(self.name)}-around-{self.warm_up.label}" if self.acts_around else _short(self.name)

    def check(self) -> None:
        """Check the name of the agent and its options, before time is spent on anything else."""
        from agents.sb3.families import check_agent_options, check_learns_within

        check_agent_options(self.name, self.options)
        check_learns_within(self.name)

    def around(self, run: DistillationRun, seed: int) -> NetworkPolicy | Rule | None:
        """Return the rule or policy that the agent acts around, or None."""
        if self.acts_around is None:
            return None
        if run.num_processes > 1:
            raise UsageError(
                "an agent around a rule needs all outputs in one process: leave torchrun away, or choose --around None"
            )
        from agents.rules.base import Rule
        from agents.rules.create import check_function

        around = self.warm_up.create(run, seed)
        return check_function(around) if isinstance(around, Rule) else around

    def agent(self, env: VectorEnv[Any, Any, Any], seed: int, steps_per_phase: int | None = None) -> BaseAlgorithm:
        """Return the agent for an environment; ``steps_per_phase`` is the steps after which learning may pause."""
        from agents.sb3.make import make_agent

        self.check()  # names that are arguments of make_agent are no options of an agent's class
        chosen: dict[str, Any] = {"gamma": self.discount, "seed": seed, **self.options}
        # The environment comes with its rewards as the options ask for them.
        return make_agent(self.name, env, calibrator="uniform", steps_per_phase=steps_per_phase, **chosen)


Choice = RuleChoice | SavedPolicy | GivenPolicy | AgentChoice


def temperature_label(temperature: float | str) -> str:
    """Return the name of a fixed temperature: ``T=4`` for 4, 4.0 and "4", ``T=2s`` for "2s"."""
    text = str(temperature)
    number, unit = (text[:-1], "s") if text.endswith("s") else (text, "")
    try:
        return f"T={float(number):g}{unit}"
    except ValueError:
        raise UsageError(f"{text!r} is no temperature: give a number, or a number with the suffix s") from None


def _multiplied(bound: OptionValue, factor: float) -> str:
    text = str(bound).strip().lower()
    number = text.removesuffix("s")
    return f"{factor * float(number):.3g}{text[len(number) :]}"


def _short(name: str) -> str:
    """Return the last part of ``package.module:name``, or a name as it is."""
    return name.rpartition(":")[2]
