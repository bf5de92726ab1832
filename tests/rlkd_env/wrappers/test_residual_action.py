"""The wrapper that lets agents act around a rule: the environment's contract, several runs, and calibrators."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.rules.create import create_rule
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, ResidualAction, TemperatureAction

MakeRun = Callable[..., DistillationRun]
SHORT = {"epochs": 2, "device": "cpu"}


def zeros(env: ResidualAction) -> np.ndarray:
    return np.zeros(env.action_space.shape, dtype=np.float32)


def some_actions(env: ResidualAction, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, env.action_space.shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("temperatures", ["shared", "separate"])
@pytest.mark.parametrize("rule", ["lskd", "fixed"])
def test_our_vector_checker_passes(temperatures: str, rule: str) -> None:
    env = ResidualAction(KDVectorEnv(16, temperatures=temperatures, **SHORT), create_rule(rule))
    width = 1 if temperatures == "shared" else 2
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (16, width), dtype=np.float32)
    check_vector_env(env)


@pytest.mark.slow
@pytest.mark.parametrize("temperatures", ["shared", "separate"])
@pytest.mark.parametrize("name", ["fixed", "difficulty", "lskd", "normkd", "ttm", "wttm", "dtkd"])
def test_the_action_0_everywhere_makes_the_rules_own_student(make_run: MakeRun, name: str, temperatures: str) -> None:
    straight, run = make_run(), make_run(temperatures=temperatures)
    straight.reset(4)
    straight.advance(create_rule(name))
    env = ResidualAction(KDVectorEnv(run=run), create_rule(name))
    env.reset(seed=4)
    while not run.finished:
        env.step(zeros(env))
    for one, other in zip(run.student.parameters(), straight.student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_actions_that_are_none_are_refused_and_change_nothing() -> None:
    env = ResidualAction(KDVectorEnv(16, **SHORT), create_rule("lskd"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not a number"):
        env.step(np.full((16, 1), np.nan, dtype=np.float32))
    for shape in ((16,), (16, 2), (15, 1)):
        with pytest.raises(ValueError, match=r"shape \(16, 1\)"):
            env.step(np.zeros(shape, dtype=np.float32))
    assert env.unwrapped.run.step_count == 0
    env.step(np.full((16, 1), np.inf, dtype=np.float32))
    assert env.unwrapped.run.step_count == 1


def test_the_step_before_the_first_reset_resets() -> None:
    env = ResidualAction(KDVectorEnv(16, **SHORT), create_rule("fixed"))
    observation, reward, *_ = env.step(zeros(env))
    assert observation.shape == (16, 4)
    assert not reward.any()
    assert env.unwrapped.run.step_count == 0


def test_other_environments_and_widths_are_refused() -> None:
    with pytest.raises(UsageError, match="KDVectorEnv"):
        ResidualAction(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), create_rule("fixed"))
    with pytest.raises(UsageError, match="leave TemperatureAction away"):
        ResidualAction(TemperatureAction(KDVectorEnv(16, **SHORT)), create_rule("fixed"))
    with pytest.raises(UsageError, match="width"):
        ResidualAction(KDVectorEnv(16, **SHORT), create_rule("fixed"), width=-1.0)
    with pytest.raises(UsageError, match="gradient False"):
        ResidualAction(KDVectorEnv(32, num_runs=2, run_mode="serial", **SHORT), create_rule("lskd"))
    with pytest.raises(UsageError, match="learned along"):
        ResidualAction(KDVectorEnv(32, num_runs=2, **SHORT), create_rule("ctkd"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stacked", "workers", "serial"])
def test_several_runs_are_acted_in_as_one(make_run: MakeRun, mode: str) -> None:
    """LSKD's factor reaches every run, and a row of actions belongs to its own run."""
    rule = create_rule("lskd", {"gradient": mode == "stacked"})
    env = ResidualAction(KDVectorEnv(32, num_runs=2, run=make_run(batch_size=16), run_mode=mode), rule)
    env.reset(seed=3)
    actions = [some_actions(env, step) for step in range(6)]
    for action in actions:
        env.step(action)
    students = env.unwrapped.runs.students()
    env.close()
    for number in range(2):
        alone = ResidualAction(KDVectorEnv(run=make_run(batch_size=16)), rule)
        alone.reset(seed=3 + number)
        for action in actions:
            alone.step(action[number * 16 : (number + 1) * 16])
        for one, other in zip(students[number].parameters(), alone.unwrapped.run.student.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperatures", ["shared", "separate"])
@pytest.mark.parametrize("name", sorted(set(CALIBRATORS) - {"uniform", "return_decomposition"}))
def test_credits_are_relative_to_the_rule(make_run: MakeRun, name: str, temperatures: str) -> None:
    run = make_run(batch_size=16, temperatures=temperatures)
    residual = ResidualAction(KDVectorEnv(run=run), create_rule("lskd"), level="free")
    env = CalibratedReward(residual, name)
    env.reset(seed=0)
    env.step(zeros(residual))
    assert env.hook.credit.abs().max() < 1e-9
    action = zeros(residual)
    action[3] = 1.0
    env.step(action)
    credit = env.hook.credit.abs()
    assert credit[3] > 1e-6
    assert credit.sum() - credit[3] < 1e-9
