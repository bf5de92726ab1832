"""The toy is what it says, and checked as any vector environment."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.commands.bench.toy import (
    HIGHEST,
    LOWEST,
    UPDATES,
    KnownBestTemperatures,
    best_log_temperature,
    log_temperature,
)
from rlkd_env.envs import check_vector_env


def test_it_keeps_the_contract_of_a_vector_environment() -> None:
    check_vector_env(KnownBestTemperatures(8))


def test_the_best_temperatures_earn_most_and_every_slot_the_same() -> None:
    env, earned = KnownBestTemperatures(), {}
    for shift in (-0.2, 0.0, 0.2):
        observation, _ = env.reset(seed=0)
        total = 0.0
        for _ in range(100):
            best = (best_log_temperature(observation) - np.log(LOWEST)) / np.log(HIGHEST / LOWEST) * 2.0 - 1.0
            observation, rewards, *_ = env.step((best + shift)[:, None].astype(np.float32))
            assert np.unique(rewards).size == 1
            total += float(rewards[0])
        earned[shift] = total
    assert earned[0.0] > max(earned[-0.2], earned[0.2])
    # a shift of 0.2 is 0.35 in log T, whose square costs 1e-3 times 0.12 a step
    assert earned[0.0] - earned[0.2] == pytest.approx(100 * 1e-3 * (0.2 * np.log(HIGHEST / LOWEST) / 2) ** 2, rel=1e-3)


def test_a_run_ends_after_its_updates_and_the_best_constant_is_far_off() -> None:
    env = KnownBestTemperatures(2)
    env.reset(seed=0)
    ends = [env.step(np.zeros((2, 1), np.float32))[2].all() for _ in range(UPDATES)]
    assert ends == [False] * (UPDATES - 1) + [True]
    uniform = np.linspace(0.0, 1.0, 100_001)[:, None]
    assert best_log_temperature(uniform).std() == pytest.approx(np.log(16.0) / np.sqrt(12.0), abs=1e-4)
    assert log_temperature(np.array([-1.0, 1.0])) == pytest.approx(np.log([LOWEST, HIGHEST]))
