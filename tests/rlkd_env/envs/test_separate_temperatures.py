"""An action of two numbers: the teacher's temperature and the student's."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from watching import watch

from agents.rules.create import create_rule
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.credit.return_decomposition import ReturnDecomposition
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

MakeRun = Callable[..., DistillationRun]
SEPARATE = {"temperatures": "separate", "epochs": 2, "device": "cpu", "action": "temperature"}


def test_the_spaces_have_two_numbers_an_instance() -> None:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=16, temperature_min=1, temperature_max=10, **SEPARATE)
    assert envs.single_action_space == gym.spaces.Box(1.0, 10.0, (2,), dtype=np.float32)
    single = gym.make("rlkd/Digits-v0", batch_size=16, temperature_min=1, temperature_max=10, **SEPARATE)
    assert single.action_space == gym.spaces.Box(1.0, 10.0, (16, 2), dtype=np.float32)
    wrapped = TemperatureAction(envs)
    assert wrapped.action_space == gym.spaces.Box(-1.0, 1.0, (16, 2), dtype=np.float32)


@pytest.mark.slow
def test_the_checkers_pass() -> None:
    for num_runs in (1, 2):
        envs = KDVectorEnv(16 * num_runs, num_runs=num_runs, **SEPARATE)
        check_vector_env(envs)
        check_vector_env(TemperatureAction(envs))
    env = KDEnv(batch_size=16, **SEPARATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env)


def test_the_columns_are_the_teachers_and_the_students(make_run: MakeRun) -> None:
    generator = np.random.default_rng(0)
    temperatures = generator.uniform(2.0, 9.0, (16, 2)).astype(np.float32)
    states = []
    for kind in (KDEnv, KDVectorEnv):
        env = kind(run=make_run(batch_size=16, temperatures="separate", temperature_min=1, temperature_max=10))
        env.reset(seed=2)
        states.append(env.step(temperatures)[0])
    run = make_run(batch_size=16)
    run.reset(2)
    teacher, student = torch.from_numpy(temperatures).unbind(dim=1)
    expected = run.step(Temperature(teacher, student)).state.numpy()
    for state in states:
        np.testing.assert_array_equal(state, expected)


class Losses(RunHook):
    """Keeps an instance's distillation losses before every update."""

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        with torch.no_grad():
            self.seen = run.method.logit_losses(run.outputs, temperature)["kd"]

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        """Nothing to keep."""


@pytest.mark.parametrize("name", ["lskd", "normkd", "ttm", "wttm", "dtkd", "fixed"])
def test_the_rules_are_points_of_the_action_space(make_run: MakeRun, name: str) -> None:
    """Their losses are those of the row of their temperatures, times their factor over T_student · T_teacher."""
    run = make_run(batch_size=16, temperatures="separate", temperature_min=0.01, temperature_max=100)
    env, losses, rule = KDVectorEnv(run=run), Losses(), create_rule(name)
    watch(run, losses)
    env.reset(seed=0)
    for _ in range(3):
        chosen = rule(run.outputs).detach()
        with torch.no_grad():
            own = run.method.logit_losses(run.outputs, chosen)["kd"]
        env.step(torch.stack([chosen.teacher, chosen.student], dim=1).numpy())
        ratio = 1.0 if chosen.factor is None else chosen.factor / (chosen.student * chosen.teacher)
        torch.testing.assert_close(losses.seen * ratio, own, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("action", [np.full((16, 2), np.nan), np.ones((16, 1)), np.ones(16), np.ones((8, 2))])
def test_actions_that_are_no_pairs_of_temperatures_are_refused(action: np.ndarray) -> None:
    for kind in (KDEnv, KDVectorEnv):
        env = kind(batch_size=16, **SEPARATE)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="temperature"):
            env.step(action.astype(np.float32))


def test_another_word_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown temperatures 'seperate'"):
        KDEnv(temperatures="seperate", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_calibrated_rewards_still_sum_to_the_batch_reward(name: str) -> None:
    settings = {**SEPARATE, "epochs": 3}
    plain = TemperatureAction(KDVectorEnv(16, **settings))
    calibrated = CalibratedReward(TemperatureAction(KDVectorEnv(16, **settings)), name)
    generator = np.random.default_rng(0)
    plain.reset(seed=0)
    calibrated.reset(seed=0)
    spreads = []
    for _ in range(40):
        action = generator.uniform(-1, 1, (16, 2)).astype(np.float32)
        expected, rewards = plain.step(action)[1], calibrated.step(action)[1]
        np.testing.assert_allclose(rewards.mean(), expected.mean(), rtol=1e-4, atol=1e-6)
        spreads.append(rewards.std())
    assert (max(spreads) > 0) == (name != "uniform")


def test_the_decomposition_finds_which_of_the_two_temperatures_pays() -> None:
    """Made up: the reward is the mean over the instances of s · a_teacher - ½ a_student²."""
    generator = np.random.default_rng(0)
    decomposition = ReturnDecomposition(num_features=1, num_actions=2)

    def step() -> tuple[np.ndarray, np.ndarray]:
        states, actions = generator.uniform(0, 1, (16, 1)), generator.uniform(-1, 1, (16, 2))
        return decomposition.credit(states, actions), states[:, 0] * actions[:, 0] - 0.5 * actions[:, 1] ** 2

    for _ in range(320):
        _, parts = step()
        decomposition.learn(float(parts.mean()))
    found, parts = step()
    assert np.corrcoef(found, parts)[0, 1] > 0.98
