"""Who sets a run's temperatures beside or in place of an agent, as the options of ``rlkd distill`` say."""

from __future__ import annotations

from functools import partial

from agents.learned.loading import PRETRAINED, load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import FixedTemperature, Rule, RuleSetting, check_function, create_rule
from experiments.config.distill import AgentConfig
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy, parse_bound
from rlkd_env.runs.config import OptionValue
from rlkd_env.runs.run import DistillationRun


def fixed_temperature(options: AgentConfig, run: DistillationRun) -> FixedTemperature:
    """Return the rule of the warm-up.

    Raises:
        UsageError: if the option is no temperature.
    """
    return FixedTemperature(parse_bound(options.fixed_temperature, run.teacher_deviation))


def frozen_policy(options: AgentConfig, run: DistillationRun, seed: int) -> Policy | None:
    """Return the rule or saved policy that acts in place of an agent, or None; a rule becomes the run's own.

    Raises:
        UsageError: if options exclude each other, are unknown, or a policy reads other features than the run has.
    """
    if options.policy is not None and options.rule is not None:
        raise UsageError("--policy and --rule exclude each other")
    if options.rule is not None:
        run.create_policy = partial(_create_rule, options, run, options.rule, options.rule_options)
        return run.create_policy(seed)  # a wrong option is told now; the run makes its own
    if options.rule_options:
        raise UsageError("--rule-options needs a --rule that takes them")
    path = options.policy or (PRETRAINED if options.agent == PRETRAINED else None)
    if path is None:
        return None
    asks_for_learning = options.bandit or options.agent_options or options.calibrator != AgentConfig.calibrator
    if options.policy is None and asks_for_learning:
        raise UsageError("--bandit, --agent-options and --calibrator are for an agent that learns, such as --agent ppo")
    policy = load_policy(path).to(run.device)
    if isinstance(policy, TemperaturePolicy) and policy.features != run.state.names:
        raise UsageError(
            f"the policy {path} reads the features {', '.join(policy.features)}, "
            f"but the run has {', '.join(run.state.names)}: pass --features {' '.join(policy.features)}"
        )
    return policy


def rule_to_act_around(options: AgentConfig, run: DistillationRun, seed: int) -> Rule | None:
    """Return the rule that an agent starts from, or None.

    Raises:
        UsageError: if options exclude each other or are unknown, or several processes share the run.
    """
    if options.around is None:
        if options.around_options:
            raise UsageError("--around-options needs an --around that takes them")
        return None
    if options.policy is not None or options.rule is not None:
        raise UsageError("--around is for an agent: it excludes --policy and --rule")
    if options.agent == PRETRAINED:
        raise UsageError("--around is for an agent that learns, such as --agent ppo")
    if run.num_processes > 1:
        raise UsageError("an agent around a rule needs all outputs in one process: leave torchrun or --around away")
    return check_function(_create_rule(options, run, options.around, options.around_options, seed))


def _create_rule(
    options: AgentConfig, run: DistillationRun, name: str, arguments: dict[str, OptionValue], seed: int
) -> Rule:
    setting = RuleSetting(
        run.temperature_range,
        fixed_temperature(options, run).temperature,
        run.teacher_deviation,
        run.task.num_logits(run.splits),
        seed,
    )
    return create_rule(name, arguments, setting)
