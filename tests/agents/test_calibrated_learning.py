"""What credit is for: agents that learn from a shared reward what each instance needs."""

from __future__ import annotations

import numpy as np
import pytest
from toy_envs import SharedGain

from agents.sb3 import make_agent
from rlkd_env.return_decomposition import ReturnDecomposition
from rlkd_env.wrappers import CalibratedReward


def errors(calibrator: str | None, seed: int) -> np.ndarray:
    """Distance of the learned from the best action of each of two groups, as shares of it."""
    envs = SharedGain(num_envs=256, noise=0.01)
    agent = make_agent(
        "ppo", envs if calibrator is None else CalibratedReward(envs, calibrator), seed=seed, bandit=True
    )
    agent.learn(400 * 256)
    found, _ = agent.predict(np.array([[0.0], [1.0]], np.float32), deterministic=True)
    return np.abs(found[:, 0] / SharedGain.BEST - 1.0)


def test_return_decomposition_finds_both_groups_best_actions_where_the_shared_reward_does_not() -> None:
    decomposed = np.array([errors("return_decomposition", seed) for seed in range(3)])
    shared = np.array([errors(None, seed) for seed in range(3)])
    assert (decomposed < 0.1).all()
    assert shared.mean() > 2 * decomposed.mean()
    assert shared.max() > 0.2


def test_the_decomposition_recovers_the_parts_that_made_the_rewards() -> None:
    generator = np.random.default_rng(0)
    decomposition = ReturnDecomposition(num_features=3)

    def parts(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return 0.03 * actions[:, 0] * (1 - 2 * states[:, 0]) - 0.02 * actions[:, 0] ** 2 * states[:, 1]

    for step in range(600):
        progress = step / 600
        states = np.column_stack([generator.uniform(0, 1, (64, 2)), np.full(64, progress)])
        actions = generator.uniform(-1, 1, (64, 1))
        decomposition.credit(states, actions)
        trend = 0.02 * (1 - progress) ** 2  # of the run, not of the actions
        decomposition.learn(trend + parts(states, actions).mean() + 2e-4 * generator.normal())
    credit = decomposition.credit(states, actions)
    assert np.corrcoef(credit, parts(states, actions))[0, 1] > 0.9
    assert decomposition.metrics["r2"] > 0.5


def test_rewards_that_say_nothing_about_the_actions_give_hardly_any_credit() -> None:
    generator = np.random.default_rng(0)
    decomposition = ReturnDecomposition(num_features=2)
    for _ in range(300):
        states, actions = generator.uniform(0, 1, (64, 2)), generator.uniform(-1, 1, (64, 1))
        credit = decomposition.credit(states, actions)
        decomposition.learn(0.01 * generator.normal())
    assert credit.std() < 0.01
    assert decomposition.metrics["r2"] == pytest.approx(0.0, abs=0.3)
