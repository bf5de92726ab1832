"""Calibrated rewards keep the sum, the contract, and nothing of a run that has ended."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from torch import nn

from rlkd_env.credit.base import Calibrator
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

WATCHING = sorted(name for name, kind in CALIBRATORS.items() if issubclass(kind, Calibrator))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(CALIBRATORS)), st.integers(1, 5), st.integers(0, 10_000))
def test_calibrated_rewards_sum_to_the_batch_reward_of_every_interval(name: str, interval: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    settings = {"epochs": 3, "reward_interval": interval, "device": "cpu"}
    plain = TemperatureAction(KDVectorEnv(16, **settings))
    calibrated = CalibratedReward(TemperatureAction(KDVectorEnv(16, **settings)), name)
    plain.reset(seed=seed)
    calibrated.reset(seed=seed)
    earned = paid = 0.0
    for step in range(54):
        actions = generator.uniform(-1.0, 1.0, (16, 1)).astype(np.float32)
        expected, actual = plain.step(actions), calibrated.step(actions)
        np.testing.assert_array_equal(expected[0], actual[0])
        earned += expected[1].mean()
        paid += actual[1].mean()
        if (step + 1) % interval == 0 or expected[2].any():
            assert paid == pytest.approx(earned, abs=1e-5)
    assert expected[2].all()
    after_the_end = calibrated.step(actions)
    assert not after_the_end[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", WATCHING)  # what return_decomposition has learned outlives a reset
def test_the_vector_contract_holds_with_calibrated_rewards(name: str) -> None:
    envs = CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu")), name)
    check_vector_env(envs)


def test_uniform_rewards_are_those_of_the_environment() -> None:
    plain, wrapped = KDVectorEnv(16, epochs=1, device="cpu"), KDVectorEnv(16, epochs=1, device="cpu")
    uniform = CalibratedReward(wrapped, "uniform")
    plain.reset(seed=0)
    uniform.reset(seed=0)
    for _ in range(5):
        action = plain.action_space.sample()
        np.testing.assert_allclose(uniform.step(action)[1], plain.step(action)[1], atol=1e-7)


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_divergence_pays_the_penalty_and_no_nan(name: str) -> None:
    slots = KDVectorEnv(64, epochs=50, learning_rate=1e6, divergence_penalty=-3.0, device="cpu")
    envs = CalibratedReward(TemperatureAction(slots), name)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    while True:
        _, rewards, terminated, _, info = envs.step(generator.uniform(-1, 1, (64, 1)).astype(np.float32))
        assert np.isfinite(rewards).all()
        if terminated.any():
            break
    assert info["diverged"].all()
    assert rewards.mean() == pytest.approx(-3.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient", "return_decomposition"])
def test_a_wrapped_run_goes_on_from_its_snapshot_in_the_middle_of_an_interval(name: str) -> None:
    def make() -> CalibratedReward:
        return CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=9, reward_interval=3, device="cpu")), name)

    generator = np.random.default_rng(0)
    actions = generator.uniform(-1.0, 1.0, (160, 16, 1)).astype(np.float32)
    one, other = make(), make()
    one.reset(seed=0)
    for action in actions[:100]:
        one.step(action)
    run_state, state = one.unwrapped.run.state_dict(), one.state_dict()
    other.unwrapped.run.load_state_dict(run_state)
    other.load_state_dict(state, other.unwrapped.observe())
    for action in actions[100:]:
        expected, actual = one.step(action), other.step(action)
        np.testing.assert_array_equal(expected[0], actual[0])
        np.testing.assert_array_equal(expected[1], actual[1])
    assert expected[1].std() > 0


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_an_environment_that_was_reset_before_it_was_wrapped_is_stepped(name: str) -> None:
    slots = TemperatureAction(KDVectorEnv(16, epochs=9, device="cpu"))
    slots.reset(seed=0)
    envs = CalibratedReward(slots, name)
    for _ in range(3):
        rewards = envs.step(np.zeros((16, 1), np.float32))[1]
        assert np.isfinite(rewards).all()
    assert envs.unwrapped.run.step_count == 3


def test_closing_stops_the_watch() -> None:
    base = KDVectorEnv(16, epochs=1, device="cpu")
    envs = CalibratedReward(base, "uniform")
    assert len(base.run.hooks) == 1
    envs.close()
    assert base.run.hooks == ()
    CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu"))).close()


def test_what_does_not_suit_is_refused() -> None:
    base = KDVectorEnv(16, epochs=1, device="cpu")
    with pytest.raises(UsageError, match="Did you mean 'gradient'"):
        CalibratedReward(base, "gradients")
    with pytest.raises(UsageError, match="positive and finite"):
        CalibratedReward(base, "gradient", reference=0.0)
    with pytest.raises(UsageError, match="needs a KDVectorEnv"):
        CalibratedReward(gym.make_vec("CartPole-v1", num_envs=2), "uniform")
    with pytest.raises(UsageError, match="wrap the environment in TemperatureAction"):
        CalibratedReward(base)
    with pytest.raises(UsageError, match="Box states and actions"):
        CalibratedReward(gym.make_vec("CartPole-v1", num_envs=2))
    convolutional = KDVectorEnv(
        16, epochs=1, device="cpu", student=lambda: nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    )
    envs = CalibratedReward(convolutional, "last_layer")
    envs.reset(seed=0)
    with pytest.raises(UsageError, match="ends in a linear layer"):
        envs.step(np.full((16, 1), 4.0, np.float32))
