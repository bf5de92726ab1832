"""Policies by their kind, and that of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coefficient_runs import RULE, level, outputs
from torch import nn

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.evolution import CoefficientForm
from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules import create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import TemperatureRange


def test_policies_are_loaded_by_their_kind(tmp_path: Path) -> None:
    coefficients = CoefficientForm("linear", RULE).policy(torch.linspace(-0.5, 0.5, 6))
    coefficients.save(tmp_path / "coefficients")
    layers = [nn.Linear(2, 1), nn.Hardtanh()]
    action_map = ActionMap(TemperatureRange(1.0, 9.0))
    TemperaturePolicy(layers, ("student_performance", "progress"), action_map).save(tmp_path / "temperature")
    loaded = load_policy(tmp_path / "coefficients" / "policy.json")
    assert isinstance(loaded, CoefficientPolicy)
    assert torch.equal(loaded(outputs(2)).student, coefficients(outputs(2)).student)
    assert isinstance(load_policy(str(tmp_path / "temperature")), TemperaturePolicy)
    with pytest.raises(UsageError, match="kind 'coefficients', not 'temperature'"):
        TemperaturePolicy.load(tmp_path / "coefficients")
    description = json.loads((tmp_path / "coefficients" / "policy.json").read_text())
    (tmp_path / "coefficients" / "policy.json").write_text(json.dumps({**description, "kind": "magic"}))
    with pytest.raises(UsageError, match=r"unknown kind of policy 'magic'. Valid: coefficients, temperature"):
        load_policy(tmp_path / "coefficients")


@pytest.mark.slow
def test_the_policy_of_the_package_needs_neither_gymnasium_nor_stable_baselines3() -> None:
    code = """
import sys
for name in ("gymnasium", "stable_baselines3", "cma"):
    sys.modules[name] = None
import torch
from agents.learned.loading import load_policy

policy = load_policy("pretrained")
temperature = policy.choose(torch.randn(8, 5), 6 * torch.randn(8, 5), torch.arange(8) % 5, progress=0.5)
assert temperature.student.shape == (8,) and (temperature.student > 0).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_policy_of_the_package_takes_its_unit_from_the_teacher() -> None:
    policy = load_policy("pretrained")
    given = outputs(1)
    larger = InstanceOutputs(3.0 * given.student_logits, 3.0 * given.teacher_logits, given.labels, given.progress)
    torch.testing.assert_close(policy(larger).student, 3.0 * policy(given).student)


def test_the_policy_of_the_package_stays_around_the_schedule_that_it_has_learned_around() -> None:
    policy = load_policy("pretrained")
    assert isinstance(policy, CoefficientPolicy)
    options = {"first": "3s", "last": "0.35s", "shape": "linear", "regions": (0.5, 0.5), "own_spread": 0.5}
    schedule = create_rule("anneal", {**options, "cold_start": True})
    for progress in (0.0, 0.2, 0.5, 1.0):
        for given in (outputs(1, progress), replace(outputs(1, progress), further_loss=torch.zeros(16))):
            ratio = level(policy(given)) / level(schedule(given))
            assert (ratio.log().abs() <= policy.rule.width + 1e-5).all()


def test_a_policys_file_keeps_the_whole_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults of annealing may change from version to version; what a policy was learned around may not."""
    CoefficientForm("linear", RULE).policy(torch.zeros(6)).save(tmp_path / "coefficients")
    bounds = TemperatureRange(0.1, 20.0)
    layers, features = [nn.Linear(1, 1), nn.Hardtanh()], ("student_performance",)
    TemperaturePolicy(layers, features, ResidualMap(create_rule("anneal"), bounds)).save(tmp_path / "actions")
    given = outputs(1, 0.2), replace(outputs(1, 0.2), further_loss=torch.zeros(16))
    before = [load_policy(tmp_path / name)(each).student for name in ("coefficients", "actions") for each in given]
    for name, value in {"IMAGES": ("9s", "8s"), "REGIONS": (9.0, 8.0), "OWN_SPREAD": 0.9}.items():
        monkeypatch.setattr(f"rlkd_env.instances.schedule.ANNEAL_{name}", value)
    assert not torch.equal(create_rule("anneal")(given[0]).student, before[0])
    after = [load_policy(tmp_path / name)(each).student for name in ("coefficients", "actions") for each in given]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_file_that_tells_no_shape_means_the_schedule_of_its_time(tmp_path: Path) -> None:
    CoefficientForm("linear", RULE).policy(torch.zeros(6)).save(tmp_path)
    file = tmp_path / "policy.json"
    description = json.loads(file.read_text())
    for ends, images, regions in (
        ((None, None), ("3s", "0.35s"), (2, 0.5)),
        (("4s", None), ("4s", "0.35s"), ("4s", 0.5)),
    ):
        rule = {key: description["rule"][key] for key in ("features", "width")}
        file.write_text(json.dumps({**description, "rule": {**rule, "first": ends[0], "last": ends[1]}}))
        of_its_time = {"first": images[0], "last": images[1], "shape": "linear", "regions": regions, "own_spread": 0}
        schedule = create_rule("anneal", of_its_time)
        for given in (outputs(1, 0.2), replace(outputs(1, 0.2), further_loss=torch.zeros(16))):
            torch.testing.assert_close(load_policy(tmp_path)(given).student, schedule(given).student)


def test_coefficients_from_before_the_schedule_are_refused(tmp_path: Path) -> None:
    CoefficientForm("linear", RULE).policy(torch.zeros(6)).save(tmp_path)
    file = tmp_path / "policy.json"
    description = json.loads(file.read_text())
    description["rule"] = {"features": description["rule"]["features"], "low": 0.125, "high": 8.0}
    file.write_text(json.dumps(description))
    with pytest.raises(UsageError, match=r"saved before version 0\.3.*train it again"):
        load_policy(tmp_path)


def test_a_file_alone_runs_no_code_of_somebodys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import outside_parts

    bounds = TemperatureRange(1.0, 9.0)
    features = ("progress", outside_parts.teacher_peak)
    around = ResidualMap(create_rule(outside_parts.ByMargin, {"low": 2.0}), bounds, 1.0)
    for name, action_map in {"own": ActionMap(bounds), "around": around}.items():
        policy = TemperaturePolicy([nn.Linear(2, 1), nn.Hardtanh()], features, action_map)
        policy.save(tmp_path / name)
        again = load_policy(tmp_path / name)
        assert isinstance(again, TemperaturePolicy)
        assert again.features == ("progress", "outside_parts:teacher_peak")
        assert torch.equal(again(outputs(1)).student, policy(outputs(1)).student)
    monkeypatch.delitem(sys.modules, "outside_parts")
    for name in ("own", "around"):
        with pytest.raises(UsageError, match=r"'outside_parts:.*', somebody's own code, which a file alone never runs"):
            load_policy(tmp_path / name)
