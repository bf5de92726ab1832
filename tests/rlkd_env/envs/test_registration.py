"""The ids, for those who import this package and for those who do not."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import pytest

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.envs.registration import register_envs


@pytest.mark.filterwarnings("error")
def test_registering_again_changes_nothing_and_warns_of_nothing() -> None:
    spec = gym.spec("rlkd/Digits-v0")
    register_envs()
    assert gym.spec("rlkd/Digits-v0") is spec
    assert spec.kwargs == {"dataset": "digits", "action": "normalized", "observation": "batch"}


@pytest.mark.slow
def test_an_id_can_name_the_package_that_registers_it() -> None:
    program = "import gymnasium as gym; print(gym.make('rlkd_env:rlkd/Digits-v0', device='cpu').action_space.shape)"
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "(64,)\n", result.stderr
