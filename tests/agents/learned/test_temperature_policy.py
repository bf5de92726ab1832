"""Learned temperatures on disk without pickle, without Gymnasium and stable-baselines3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from saved_policies import small_policy

from agents.learned.temperature_policy import TemperaturePolicy
from rlkd_env.instances.outputs import InstanceOutputs


def test_a_policy_reads_its_features_out_of_the_logits(tmp_path: Path) -> None:
    policy = small_policy()
    student, teacher, labels = torch.randn(5, 10), torch.randn(5, 10), torch.arange(5)
    state = torch.stack([student.softmax(1)[torch.arange(5), labels], torch.full((5,), 0.3)], dim=1)
    expected = policy.temperatures_from_state(state)
    torch.testing.assert_close(policy.temperatures(student, teacher, labels, progress=0.3), expected)
    temperature = policy(InstanceOutputs(student, teacher, labels, 0.3))
    torch.testing.assert_close(temperature.teacher, expected)
    torch.testing.assert_close(temperature.student, expected)
    policy.save(tmp_path)
    loaded = TemperaturePolicy.load(str(tmp_path / "policy.json"))
    assert loaded.features == ("student_performance", "progress")
    torch.testing.assert_close(loaded.temperatures(student, teacher, labels, progress=0.3), expected)


@pytest.mark.slow
def test_a_policy_works_where_gymnasium_and_stable_baselines3_are_missing(tmp_path: Path) -> None:
    small_policy().save(tmp_path)
    code = f"""
import sys, importlib.util as u
for name in ("gymnasium", "stable_baselines3"): sys.modules[name] = None
find = u.find_spec
u.find_spec = lambda name, *a: None if name in ("gymnasium", "stable_baselines3") else find(name, *a)
import torch
from agents.learned.temperature_policy import TemperaturePolicy
policy = TemperaturePolicy.load({str(tmp_path)!r})
print(len(policy.temperatures(torch.randn(7, 10), torch.randn(7, 10), torch.arange(7), progress=0.5)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "7\n", result.stderr
