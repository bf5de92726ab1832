"""Parts by name: the package's own on first use, and those from outside by path or as objects."""

from __future__ import annotations

from typing import Any

import outside_parts
import pytest

from agents.rules import RULES, Rule, create_rule, recreate_rule
from agents.rules.create import RuleSetting
from agents.sb3 import AGENTS
from rlkd_env.credit import CALIBRATORS
from rlkd_env.errors import UsageError
from rlkd_env.instances import FEATURES, InstanceState
from rlkd_env.methods import KD, METHODS, create_method
from rlkd_env.runs import REWARDS, RewardMeter, RunConfig
from rlkd_env.utils import Registry

OUTSIDE: list[tuple[Registry[Any], str, Any]] = [
    (METHODS, "outside_parts:HalfKD", outside_parts.HalfKD),
    (REWARDS, "outside_parts:worst_probe_loss", outside_parts.worst_probe_loss),
    (FEATURES, "outside_parts:teacher_peak", outside_parts.teacher_peak),
    (CALIBRATORS, "outside_parts:Spread", outside_parts.Spread),
    (RULES, "outside_parts:ByMargin", outside_parts.ByMargin),
]
EVERY: list[Registry[Any]] = [METHODS, REWARDS, FEATURES, CALIBRATORS, RULES, AGENTS]


@pytest.mark.parametrize("registry", EVERY, ids=lambda registry: registry.kind)
def test_every_name_leads_to_a_part_and_back(registry: Registry[Any]) -> None:
    for name, part in registry.items():
        assert registry.name_of(name) == name
        assert registry.name_of(part) == name


@pytest.mark.parametrize(("registry", "path", "part"), OUTSIDE)
def test_parts_from_outside_are_found_by_path_and_named_by_it(registry: Registry[Any], path: str, part: Any) -> None:
    assert registry[path] is part
    assert registry.name_of(part) == path
    assert path not in registry


def test_a_part_that_no_import_finds_is_found_in_the_process_that_named_it() -> None:
    class Local(KD):
        pass

    name = METHODS.name_of(Local)
    assert METHODS[name] is Local
    assert isinstance(create_method(Local), Local)


@pytest.mark.parametrize("registry", EVERY, ids=lambda registry: registry.kind)
def test_what_is_no_part_is_refused_in_one_line(registry: Registry[Any]) -> None:
    for name, message in [
        ("outside_parts:NOT_A_PART", "not a "),
        ("outside_parts:missing", "has no 'missing'"),
        ("missing_module:part", "cannot be imported"),
    ]:
        with pytest.raises(UsageError, match=message) as refused:
            registry[name]
        assert str(refused.value).startswith(f"{registry.kind} {name!r}: ")
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=f"unknown {registry.kind} 'nonsense'"):
        registry["nonsense"]
    with pytest.raises(UsageError, match="not a "):
        registry.name_of(outside_parts.NOT_A_PART)


def test_a_name_is_given_once_and_the_same_part_may_be_defined_again() -> None:
    registry: Registry[Any] = Registry("thing")

    def define() -> Any:
        @registry.register("mine")
        def part() -> None: ...

        return part

    first, second = define(), define()
    assert first is not second
    assert registry["mine"] is second
    with pytest.raises(ValueError, match="'mine' is registered already"):
        registry.register("mine")(test_a_name_is_given_once_and_the_same_part_may_be_defined_again)
    with pytest.raises(UsageError, match="unknown thing"):
        registry["outside_parts:HalfKD"]


def test_settings_take_parts_as_objects_and_keep_their_names() -> None:
    config = RunConfig.from_keywords(
        method=outside_parts.HalfKD,
        reward=outside_parts.worst_probe_loss,
        features=("progress", outside_parts.teacher_peak),
    )
    kept = config.as_keywords()
    assert kept["method"] == "outside_parts:HalfKD"
    assert kept["reward"] == "outside_parts:worst_probe_loss"
    assert kept["features"] == ("progress", "outside_parts:teacher_peak")
    assert RunConfig.from_keywords(kept) == config
    with pytest.raises(UsageError, match="not a subclass of"):
        RunConfig.from_keywords(method=outside_parts.ByMargin)


def test_what_parts_declare_is_used() -> None:
    assert RewardMeter(outside_parts.worst_probe_loss).measures_all([])
    assert InstanceState([outside_parts.teacher_peak]).names == ("outside_parts:teacher_peak",)
    setting = RuleSetting(teacher_deviation=3.0, num_classes=10)
    rule = create_rule(outside_parts.ByMargin, {"start": "2s"}, setting)
    assert (rule.low, rule.start, rule.num_classes) == (1.0, 6.0, 10)
    assert rule.description is not None
    again = recreate_rule(rule.description)
    assert isinstance(again, Rule)
    assert vars(again)["start"] == 6.0
    with pytest.raises(UsageError, match="unknown option of rule 'outside_parts:ByMargin' 'num_classes'"):
        create_rule("outside_parts:ByMargin", {"num_classes": 3}, setting)
