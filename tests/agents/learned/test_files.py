"""Damaged and foreign policies on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_policies import BOUNDS, batch, policy, small_policy
from torch import nn

from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.temperature import Temperature, TemperatureRange


def test_a_rule_without_a_name_cannot_be_saved(tmp_path: Path) -> None:
    nameless = policy(ResidualMap(lambda outputs: Temperature.shared(outputs.labels.float() + 1.0), BOUNDS))
    assert nameless(batch()).student.shape == (9,)
    with pytest.raises(UsageError, match="cannot be saved"):
        nameless.save(tmp_path)
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"around": {"rule": "lskk", "arguments": {}}}, "Did you mean 'lskd'"),
        ({"around": {"rule": "lskd", "arguments": {"tau": -1}}}, "tau must be positive"),
        ({"around": {"rule": "lskd", "arguments": {"x": 1}}}, "damaged"),
        ({"around": {"rule": "lskd"}}, "damaged"),
        ({"around": {"rule": ["lskd"], "arguments": {}}}, "damaged"),
        ({"around": None}, "damaged"),
        ({"around": {"rule": "ctkd", "arguments": {}}}, "no agent can act around the rule 'ctkd'"),
        ({"width": 0}, "width around a rule must be positive"),
        ({"width": "wide"}, "damaged"),
        ({"minimum": -1}, "must be positive"),
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    policy(ResidualMap(create_rule("lskd"), BOUNDS)).save(tmp_path)
    path = tmp_path / "policy.json"
    description = json.loads(path.read_text())
    description["action_map"] |= changes
    path.write_text(json.dumps(description))
    with pytest.raises(UsageError, match=message):
        TemperaturePolicy.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda within: within.update(kind="magic"), "unknown kind of policy 'magic'"),
        (lambda within: within.pop("layers"), "damaged: KeyError 'layers'"),
        (lambda within: within["layers"][0]["arguments"].update(in_features=5), "'around.0.weight' has shape"),
        (lambda within: within["layers"].append({"type": "Pickle", "arguments": {}}), "unknown layer 'Pickle'"),
        (lambda within: within["rule"].update(width=-1), "width around the schedule must be positive"),
    ],
)
def test_a_damaged_policy_within_a_policy_is_refused(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    policy(ResidualMap(load_policy("pretrained"), BOUNDS)).save(tmp_path)
    path = tmp_path / "policy.json"
    description = json.loads(path.read_text())
    change(description["action_map"]["around"])
    path.write_text(json.dumps(description))
    with pytest.raises(UsageError, match=message):
        load_policy(tmp_path)


def test_a_network_of_another_width_is_refused(tmp_path: Path) -> None:
    for columns in (3, 1):
        policy(ActionMap(BOUNDS), columns).save(tmp_path)
        if columns == 1:
            path = tmp_path / "policy.json"
            path.write_text(path.read_text().replace('"progress"', '"progress", "teacher_entropy"'))
        with pytest.raises(UsageError, match="one or two actions"):
            TemperaturePolicy.load(tmp_path)


def test_damaged_or_foreign_policy_files_are_refused(tmp_path: Path) -> None:
    def damage(name: str, change: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        small_policy().save(folder)
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return folder

    def rewritten(**changes: object) -> object:
        return lambda content: json.dumps({**json.loads(content), **changes}).encode()

    cases = [
        (damage("policy.safetensors", lambda b: b[:-5]), "damaged"),
        (damage("policy.safetensors", lambda b: b[:-4] + b"\0\0\0\1"), "damaged"),
        (damage("policy.json", lambda b: b[: len(b) // 2]), "cannot be read as JSON"),
        (damage("policy.json", lambda b: b"[]"), "is damaged: \\[\\] is not names and values"),
        (damage("policy.json", rewritten(format=99)), "not a policy of format"),
        (damage("policy.json", rewritten(layers=[{"type": "Pickle", "arguments": {}}])), "unknown layer"),
        (damage("policy.json", rewritten(layers=[{"type": "Linear", "arguments": {"x": 1}}])), "damaged"),
        (damage("policy.json", rewritten(action_map={"scale": "log"})), "damaged"),
        (damage("policy.json", rewritten(features=["unheard_of", "progress"])), "unknown feature"),
        (damage("policy.json", rewritten(layers=[{"type": "Tanh", "arguments": {}}])), "another network"),
        (tmp_path / "nowhere", "does not exist"),
    ]
    for folder, message in cases:
        with pytest.raises(UsageError, match=message):
            TemperaturePolicy.load(folder)


def test_layers_that_cannot_be_described_are_not_saved(tmp_path: Path) -> None:
    policy = TemperaturePolicy([nn.Bilinear(1, 1, 1)], ("progress",), ActionMap(TemperatureRange(1.0, 9.0)))
    with pytest.raises(UsageError, match="cannot be saved"):
        policy.save(tmp_path)
    assert not (tmp_path / "policy.json").exists()
