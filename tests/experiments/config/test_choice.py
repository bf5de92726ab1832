"""The members of a population: a rule at other temperatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules import create_rule
from experiments.config.choice import RuleChoice, SavedPolicy, temperature_label
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.runs.run import DistillationRun

FIXED, ANNEAL = RuleChoice("fixed", {}, 4.0), RuleChoice("anneal", {}, 4.0)


def test_fixed_temperatures_are_swept_in_equal_ratios() -> None:
    assert FIXED.sweep(5, 0.5, 8.0) == ["0.5", "1", "2", "4", "8"]
    assert FIXED.sweep(2, 1.0, 10.0) == ["1", "10"]


def test_annealed_temperatures_are_swept_around_the_rules_own() -> None:
    assert ANNEAL.sweep(3, 0.1, 9.0) == ["1.5s:0.175s", "3s:0.35s", "6s:0.7s"]
    own = RuleChoice("anneal", {"first": 8, "last": "0.5s"}, 4.0)
    assert own.sweep(4, 0.1, 9.0) == ["4:0.25s", "5.66:0.354s", "8:0.5s", "11.3:0.707s"]


def test_the_sweeps_middle_member_is_the_rule_itself_in_short_runs_too() -> None:
    members = ANNEAL.swept().members(ANNEAL.sweep(3, 0.1, 9.0))
    given = InstanceOutputs(torch.eye(3), 5 * torch.eye(3), torch.arange(3), progress=0.2, epochs=2.0)
    rules = create_rule("anneal"), create_rule("anneal", members["3s-to-0.35s"].options)
    torch.testing.assert_close(*(rule(given).student for rule in rules))
    own = RuleChoice("anneal", {"first": 8}, 4.0)
    assert own.swept() == own


@pytest.mark.parametrize("count", range(2, 12))
def test_the_rule_itself_is_always_in_the_sweep(count: int) -> None:
    found = ANNEAL.sweep(count, 0.1, 9.0)
    assert "3s:0.35s" in found
    assert len(set(found)) == count
    assert all(1.5 <= float(text.split("s")[0]) <= 6.0 for text in found)


def test_members_are_the_rule_at_their_temperatures() -> None:
    found = FIXED.members(["2", "4.0", "0.5s"])
    assert [*found] == ["T=2", "T=4", "T=0.5s"]
    assert found["T=0.5s"].as_options() == {"rule": "fixed", "fixed_temperature": "0.5s"}
    (name, member), *_ = RuleChoice("dts", {}, 4.0).members(["8:4", "4:2"]).items()
    assert name == "8-to-4"
    assert member.as_options() == {"rule": "dts", "rule_options": {"first": "8", "last": "4"}}


@pytest.mark.parametrize(
    ("choice", "temperatures", "told"),
    [
        (FIXED, ["3s:0.35s"], "'3s:0.35s' is no member with the rule fixed"),
        (ANNEAL, ["4"], "'4' is no member with the rule anneal"),
        (RuleChoice("lskd", {}, 4.0), ["1:2"], "no member with the rule lskd"),
        (FIXED, ["hot"], "'hot' is no temperature"),
        (ANNEAL, ["3s:cold"], "'cold' is no temperature"),
        (FIXED, ["4", "4.0"], "two members have the temperatures 4.0"),
    ],
)
def test_members_that_cannot_be_are_refused(choice: RuleChoice, temperatures: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        choice.members(temperatures)


def test_a_rule_without_temperatures_to_sweep_is_refused() -> None:
    with pytest.raises(UsageError, match="with the rule lskd would all be the same student"):
        RuleChoice("lskd", {}, 4.0).check_sweep()


def test_fixed_temperatures_have_one_name_however_they_are_written() -> None:
    assert [temperature_label(one) for one in (4, 4.0, "4", "4.0", "2s", 0.5)] == ["T=4"] * 4 + ["T=2s", "T=0.5"]


def test_a_policy_of_region_proposals_is_refused_for_whole_images(
    make_run: Callable[..., DistillationRun], tmp_path: Path
) -> None:
    layers = [nn.Linear(1, 1), nn.Hardtanh()]
    for features in (("overlap",), ("progress",)):
        TemperaturePolicy(layers, features, ActionMap(TemperatureRange(1.0, 9.0))).save(tmp_path / features[0])
    run = make_run(features=("student_entropy",))
    assert SavedPolicy(str(tmp_path / "progress")).create(run, 0).features == ("progress",)
    around = ResidualMap(load_policy(tmp_path / "overlap"), TemperatureRange(1.0, 9.0))
    TemperaturePolicy(layers, ("progress",), around).save(tmp_path / "around" / "overlap")
    for folder in (tmp_path / "overlap", tmp_path / "around" / "overlap"):
        with pytest.raises(
            UsageError, match=r"the policy .*/overlap: the features objectness and overlap are those of region"
        ):
            SavedPolicy(str(folder)).create(run, 0)
