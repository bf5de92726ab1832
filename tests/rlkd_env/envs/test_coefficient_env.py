"""A slot is a run, an action the coefficients for some updates."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.coefficient_env import CoefficientVectorEnv, next_decision
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CoefficientAction

MakeRun = Callable[..., DistillationRun]

COEFFICIENTS = {"reward": "log_probe_loss", "reward_interval": 2, "temperature_max": "8s"}


def actions(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, size)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stacked", "serial", "workers"])
def test_a_slot_is_the_wrapper_on_the_run_of_its_seed(mode: str, make_run: MakeRun) -> None:
    rule = CoefficientRule()
    chosen = [actions(3, rule.num_coefficients) * share for share in (1.0, 0.5, -1.0, 0.2)]
    envs = CoefficientVectorEnv(create_parallel_runs(make_run(**COEFFICIENTS), 3, mode), rule, decisions=3)
    observations, _ = envs.reset(seed=5)
    together = [envs.step(action) for action in chosen[:3]]
    assert together[-1][2].all()
    assert not together[-2][2].any()
    for slot in range(3):
        env = CoefficientAction(KDEnv(run=make_run(**COEFFICIENTS)), rule, decisions=3)
        observation, _ = env.reset(seed=5 + slot)
        np.testing.assert_allclose(observation, observations[slot], rtol=1e-4, atol=1e-5)
        for action, (context, reward, terminated, _, _) in zip(chosen, together, strict=False):
            observation, own_reward, own_end, _, _ = env.step(action[slot])
            np.testing.assert_allclose(observation, context[slot], rtol=1e-3, atol=1e-3)
            assert own_reward == pytest.approx(float(reward[slot]), rel=1e-2, abs=1e-3)
            assert own_end == terminated[slot]
    envs.close()


def test_rewards_add_up_to_the_fall_of_the_log_probe_loss(make_run: MakeRun) -> None:
    run = make_run(**COEFFICIENTS)
    env = CoefficientAction(KDEnv(run=run), decisions=3)
    env.reset(seed=0)
    before = run.task.evaluate(run.student, run.probe).loss.log()
    rewards = [env.step(np.zeros(env.rule.num_coefficients, np.float32))[1] for _ in range(3)]
    after = run.task.evaluate(run.student, run.probe).loss.log()
    assert sum(rewards) == pytest.approx(float(before - after), abs=1e-4)
    assert sum(rewards) > 0


def test_sets_of_runs_take_turns_and_can_be_chosen(make_run: MakeRun) -> None:
    sets = [create_parallel_runs(make_run(epochs=epochs), 2, "stacked") for epochs in (1, 2)]
    envs = CoefficientVectorEnv(sets, decisions=2)
    lengths = []
    for options in (None, None, None, {"turn": 1}):
        envs.reset(seed=0, options=options)
        lengths.append(envs.runs.total_steps)
    assert lengths == [4, 8, 4, 8]


@pytest.mark.parametrize(("total", "decisions"), [(480, 20), (50, 20), (7, 7), (7, 1), (41, 20)])
def test_a_run_has_as_many_decisions_as_told_equally_long(total: int, decisions: int) -> None:
    ends = [0]
    while ends[-1] < total:
        ends.append(next_decision(ends[-1], total, decisions))
    lengths = np.diff(ends)
    assert (ends[-1], len(lengths)) == (total, decisions)
    assert lengths.max() - lengths.min() <= 1


@pytest.mark.slow
def test_the_environments_keep_their_contracts(make_run: MakeRun) -> None:
    env = CoefficientAction(gym.make("rlkd/Digits-v0", device="cpu", epochs=3, **COEFFICIENTS), decisions=3)
    check_env(env, skip_render_check=True)
    check_env_for_sb3(env)
    check_vector_env(CoefficientVectorEnv(create_parallel_runs(make_run(**COEFFICIENTS), 3, "stacked"), decisions=3))


def test_diverged_runs_end_with_the_penalty(make_run: MakeRun) -> None:
    run = make_run(learning_rate=1e6, **COEFFICIENTS)
    envs = CoefficientVectorEnv(create_parallel_runs(run, 2, "stacked"), decisions=3)
    envs.reset(seed=0)
    none = np.zeros(envs.action_space.shape, np.float32)
    while True:
        observation, reward, terminated, _, info = envs.step(none)
        assert envs.observation_space.contains(observation)
        if terminated.all():
            break
    assert info["diverged"].all()
    assert (reward <= run.divergence_penalty / 2).all()


def test_bad_settings_are_told(make_run: MakeRun) -> None:
    runs = create_parallel_runs(make_run(), 2, "stacked")
    for wrong in ({"decisions": 0}, {"decisions": 13}, {"scale": 0.0}):
        with pytest.raises(UsageError):
            CoefficientVectorEnv(runs, **wrong)
    with pytest.raises(UsageError, match="same number"):
        CoefficientVectorEnv([runs, create_parallel_runs(make_run(), 3, "stacked")])
    envs = CoefficientVectorEnv(runs, decisions=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="expected actions of shape"):
        envs.step(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="not a number"):
        envs.step(np.full(envs.action_space.shape, np.nan, np.float32))
