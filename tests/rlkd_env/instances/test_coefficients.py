"""Coefficient actions: the rule, the wrapper of a single run, and the vector environment of several."""

from __future__ import annotations

import math
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.coefficient_env import CoefficientVectorEnv, next_decision
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CoefficientAction

MakeRun = Callable[..., DistillationRun]
COEFFICIENTS = {"reward": "log_probe_loss", "reward_interval": 2, "temperature_max": "8s"}


def outputs(num_runs: int = 1, batch_size: int = 32, classes: int = 10, scale: float = 4.0) -> InstanceOutputs:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, num_runs * batch_size, classes, generator=generator)
    labels = torch.randint(classes, (num_runs * batch_size,), generator=generator)
    return InstanceOutputs(student, scale * teacher, labels, progress=0.25, num_runs=num_runs)


def actions(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, size)).astype(np.float32)


def test_without_coefficients_every_temperature_is_the_batch_mean_deviation() -> None:
    rule, given = CoefficientRule(), outputs()
    chosen = rule.temperatures(torch.zeros(1, rule.num_coefficients), given)
    torch.testing.assert_close(chosen, given.teacher_logits.std(-1, correction=0).mean().expand(32))


def test_the_rule_is_the_formula_that_it_states() -> None:
    rule, given = CoefficientRule(("student_performance", "teacher_relative_spread")), outputs()
    weights = torch.tensor([[0.3, -0.5, 0.7]])
    spread = given.teacher_logits.double().std(-1, correction=0)
    confidence = given.student_logits.double().softmax(-1).gather(-1, given.labels[:, None])[:, 0]
    relative = (spread / spread.mean()).log() / 2.0  # its bounds are -2 and 2
    logarithm = 0.3 - 0.5 * (2.0 * confidence - 1.0) + 0.7 * relative
    expected = spread.mean() * (math.log(8) * (logarithm / math.log(8)).tanh()).exp()
    torch.testing.assert_close(rule.temperatures(weights, given), expected.float(), rtol=1e-5, atol=0)


def test_temperatures_grow_with_the_teachers_logits_and_the_context_does_not() -> None:
    rule = CoefficientRule(("teacher_relative_spread", "logit_correlation", "student_entropy"))
    weights = torch.tensor([[0.3, 1.0, -0.5, 0.7]])
    small, large = outputs(scale=4.0), outputs(scale=12.0)
    torch.testing.assert_close(3.0 * rule.temperatures(weights, small), rule.temperatures(weights, large))
    torch.testing.assert_close(rule.context(small), rule.context(large))


def test_extreme_coefficients_stay_between_the_bounds() -> None:
    rule, given = CoefficientRule(low=0.25, high=2.0), outputs()
    unit = given.teacher_logits.std(-1, correction=0).mean()
    for sign, bound in ((-1.0, 0.25), (1.0, 2.0)):
        weights = torch.zeros(1, rule.num_coefficients)
        weights[0, 0] = sign * 100.0
        torch.testing.assert_close(rule.temperatures(weights, given), (bound * unit).expand(32))


def test_several_runs_in_one_batch_are_each_what_they_are_alone() -> None:
    rule, together = CoefficientRule(), outputs(num_runs=3)
    weights = torch.from_numpy(actions(3, rule.num_coefficients))
    temperatures, context = rule.temperatures(weights, together), rule.context(together)
    for run in range(3):
        own = slice(32 * run, 32 * (run + 1))
        alone = InstanceOutputs(
            together.student_logits[own], together.teacher_logits[own], together.labels[own], progress=0.25
        )
        torch.testing.assert_close(temperatures[own], rule.temperatures(weights[run : run + 1], alone))
        torch.testing.assert_close(context[run : run + 1], rule.context(alone))


def test_the_context_tells_progress_loss_and_means() -> None:
    given = outputs()
    rule = CoefficientRule(("student_performance",))
    progress, loss, performance = rule.context(given)[0]
    assert rule.context_names == ("progress", "batch_loss", "student_performance")
    assert float(progress) == -0.5
    share = float(given.student_cross_entropy.mean()) / math.log(10)
    assert float(loss) == pytest.approx(min(1.0, 1.0 + math.log10(share) / 2.0))
    confidence = given.student_logits.softmax(-1).gather(-1, given.labels[:, None]).mean()
    assert float(performance) == pytest.approx(2.0 * float(confidence) - 1.0, abs=1e-6)


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
    with pytest.raises(UsageError, match="from a positive to a greater one"):
        CoefficientRule(low=2.0, high=1.0)
    envs = CoefficientVectorEnv(runs, decisions=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="expected actions of shape"):
        envs.step(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="not a number"):
        envs.step(np.full(envs.action_space.shape, np.nan, np.float32))
