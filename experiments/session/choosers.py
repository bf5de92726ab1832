"""Who sets a run's temperatures beside or in place of an agent, as the options of ``rlkd distill`` say."""

from __future__ import annotations

from agents.rules.base import Rule
from experiments.config.choice import AgentChoice
from experiments.config.distill import AgentConfig
from rlkd_env.instances.temperature import Policy
from rlkd_env.runs.run import DistillationRun


def fixed_temperature(options: AgentConfig, run: DistillationRun) -> Rule:
    """Return the rule of the warm-up."""
    return options.fixed.create(run, 0)


def frozen_policy(options: AgentConfig, run: DistillationRun, seed: int) -> Policy | None:
    """Return the rule or saved policy that acts in place of an agent, or None; a rule becomes the run's own."""
    choice = options.choice
    return None if isinstance(choice, AgentChoice) else choice.policy(run, seed)


def rule_to_act_around(options: AgentConfig, run: DistillationRun, seed: int) -> Rule | None:
    """Return the rule that an agent starts from, or None."""
    choice = options.choice
    return choice.rule_around(run, seed) if isinstance(choice, AgentChoice) else None
