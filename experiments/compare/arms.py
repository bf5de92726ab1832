"""The arms of a comparison: options of ``rlkd distill`` by name."""

from __future__ import annotations

from typing import Any

from agents.rules.create import RULES
from experiments.config import CompareConfig
from experiments.config.choice import temperature_label
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.files import read_yaml
from rlkd_env.utils.options import renamed

ALONE = "student_alone"
"""The arm whose students are trained without a teacher."""
Options = dict[str, Any]  # options of ``rlkd distill`` by name, as a config file holds them


def create_arms(config: CompareConfig) -> dict[str, Options]:
    """Return the arms that a comparison's options name, ready-made ones first."""
    options, arms = config.comparison, dict[str, Options]()
    fixed = {"rule": "fixed", "policy": None}
    temperatures: list[float | str] = list(options.fixed_temperatures)
    rules = [name for rule in options.rules for name in (RULES if rule == "all" else (rule,))]
    if "fixed" in rules or options.baseline == "auto":
        temperatures.append(config.agent.fixed_temperature)
    for temperature in sorted(map(str, temperatures), key=_sort_key):
        arms[temperature_label(temperature)] = {**fixed, "fixed_temperature": temperature}
    for name in rules:
        if name not in RULES and ":" not in name:
            raise unknown_name("rule", name, [*RULES, "all"])
        if name != "fixed":
            arms[name] = {"rule": name, "policy": None}
    for agent in options.agents:
        learning = {"agent": agent, "rule": None, "policy": None}
        for calibrator in options.calibrators:
            arms[f"{agent}-{calibrator}"] = {**learning, "calibrator": calibrator}
        if not options.calibrators:
            arms[agent] = learning
    policies = {name: {"policy": path, "rule": None} for name, path in options.policies.items()}
    alone = {ALONE: {**fixed, "method": "cross_entropy"}} if options.student_alone else {}
    own = {name: read_options(f"arm {name}", text) for name, text in options.arms.items()}
    for more in (policies, alone, own):
        for name, arm in more.items():
            if name in arms:
                raise UsageError(f"two arms have the name {name!r}")
            arms[name] = arm
    return arms


def baseline_of(config: CompareConfig, arms: dict[str, Options]) -> str:
    """Return the name of the arm that differences are taken to."""
    name = config.comparison.baseline
    if name == "auto":
        return temperature_label(config.agent.fixed_temperature)
    if name not in arms:
        raise unknown_name("arm as baseline:", name, arms)
    return name


def read_options(of: str, text: str) -> Options:
    """Read options from YAML."""
    content = read_yaml(text, f"{of}: {text!r}")
    if content is None or content == "None":
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{of}: {text!r} are no options by name, such as {{rule: lskd}}")
    return renamed({str(name).replace("-", "_"): value for name, value in content.items()})


def _sort_key(temperature: str) -> tuple[bool, float]:
    name = temperature_label(temperature).removeprefix("T=")
    return name.endswith("s"), float(name.removesuffix("s"))
