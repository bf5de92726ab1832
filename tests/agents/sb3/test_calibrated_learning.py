"""What credit is for: agents that learn from a shared reward what each instance needs."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_envs import SharedGain

from agents.learned.temperature_policy import TemperaturePolicy
from agents.sb3.export import export_policy
from agents.sb3.make import make_agent
from rlkd_env.credit.return_decomposition import ReturnDecomposition
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, TemperatureAction


def errors(calibrator: str | None, seed: int) -> np.ndarray:
    """Distance of the learned from the best action of each of two groups, as shares of it."""
    envs = SharedGain(num_envs=256, noise=0.01)
    agent = make_agent(
        "ppo",
        envs if calibrator is None else CalibratedReward(envs, calibrator),
        calibrator="uniform",
        seed=seed,
        n_steps=4,
        batch_size=1024,
        n_epochs=5,  # the default's many steps would learn from 25 rollouts
    )
    agent.learn(400 * 256)
    found, _ = agent.predict(np.array([[0.0], [1.0]], np.float32), deterministic=True)
    return np.abs(found[:, 0] / SharedGain.BEST - 1.0)


@pytest.mark.slow
def test_return_decomposition_finds_both_groups_best_actions_where_the_shared_reward_does_not() -> None:
    decomposed = np.array([errors("return_decomposition", seed) for seed in range(3)])
    shared = np.array([errors(None, seed) for seed in range(3)])
    assert (decomposed < 0.1).all()
    assert shared.mean() > 2 * decomposed.mean()
    assert shared.max() > 0.2


@pytest.mark.slow
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


@pytest.mark.slow
def test_rewards_that_say_nothing_about_the_actions_give_hardly_any_credit() -> None:
    generator = np.random.default_rng(0)
    decomposition = ReturnDecomposition(num_features=2)
    for _ in range(300):
        states, actions = generator.uniform(0, 1, (64, 2)), generator.uniform(-1, 1, (64, 1))
        credit = decomposition.credit(states, actions)
        decomposition.learn(0.01 * generator.normal())
    assert credit.std() < 0.01
    assert decomposition.metrics["r2"] == pytest.approx(0.0, abs=0.3)


def confused(teacher: nn.Sequential) -> nn.Sequential:
    """The same teacher, but it calls a 7 an 8, an 8 a 9 and a 9 a 7: what is good for most images is bad for these."""
    teacher = deepcopy(teacher)
    said = torch.tensor([0, 1, 2, 3, 4, 5, 6, 9, 7, 8])
    for parameter in teacher[-1].parameters():
        parameter.data = parameter.data[said]
    return teacher


def digits(teacher: nn.Module) -> KDVectorEnv:
    """Runs of 120 updates, with the default student, optimiser, features and range of temperatures."""
    return KDVectorEnv(64, epochs=30, device="cpu", teacher=teacher)


def learned_policy(calibrator: str, teacher: nn.Module, seed: int, runs: int = 10) -> TemperaturePolicy:
    envs = TemperatureAction(digits(teacher))
    agent = make_agent(
        "ppo",
        CalibratedReward(envs, calibrator),
        seed=seed,
        n_steps=64,
        batch_size=64 * 64,
        n_epochs=10,
        learning_rate=5e-3,
    )
    agent.learn(runs * envs.unwrapped.run.total_steps * 64)
    return export_policy(agent, envs.unwrapped.run.state.names, envs.action_map)


def probe_loss(run: DistillationRun) -> float:
    student = deepcopy(run.student).double()
    with torch.no_grad():
        return float(F.cross_entropy(student(run.probe.images.double()), run.probe.labels))


def gains_of_an_update(policies: Sequence[TemperaturePolicy], teacher: nn.Module, seeds: Sequence[int]) -> np.ndarray:
    """By how much more an update lowers the probe loss with a policy's temperatures than with the reference.

    At every tenth update of runs at the reference temperature the update is made on forks with each policy's
    temperatures, and the losses that all of them really come to are compared.

    Returns:
        ``(runs, policies)``, means over the updates of a run.
    """
    run = digits(teacher).run
    bounds = run.temperature_range
    reference = Temperature.shared(torch.full((64,), (bounds.minimum * bounds.maximum) ** 0.5))
    gains = np.empty((len(seeds), run.total_steps // 10, len(policies)))
    for row, seed in zip(gains, seeds, strict=True):
        run.reset(seed)
        for point in row:
            reached = []
            for policy in policies:
                fork = run.fork()
                fork.step(policy(fork.outputs))
                reached.append(probe_loss(fork))
            run.step(reference)
            point[:] = probe_loss(run) - np.array(reached)
            run.advance(lambda outputs: reference, steps=9)
    return gains.mean(axis=1)


@pytest.mark.slow
def test_ppo_on_gradient_credit_gains_more_probe_loss_per_update_than_on_the_shared_reward(
    digits_teacher: nn.Sequential,
) -> None:
    """In 10 runs it learns which images to distil cool; the shared reward takes longer to tell.

    Pilot with 5 training seeds, each judged on 12 runs of its own: the gain over the reference was 1.7 to 5.0e-3 nats
    an update (4.2 to 8.1 standard errors), that over the shared reward 1.6 to 5.0e-3 (3.5 to 6.4). Credits shuffled
    within the batch taught no more than the shared reward.
    """
    teacher = confused(digits_teacher)
    policies = [learned_policy(calibrator, teacher, seed=0) for calibrator in ("gradient", "uniform")]
    gains = gains_of_an_update(policies, teacher, seeds=range(1000, 1012))
    over_reference, over_shared = gains[:, 0], gains[:, 0] - gains[:, 1]
    for gain in (over_reference, over_shared):
        assert gain.mean() > 2.0 * gain.std(ddof=1) / np.sqrt(len(gain))
        assert gain.mean() > 5e-4  # nats; an update at the reference temperature gains about 1e-3
