"""A stock agent learns coefficients over many runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from coefficient_runs import RULE, SEEDS, make_runs, outputs

from agents.sb3.coefficient_training import CoefficientTraining
from rlkd_env.envs.coefficient_env import CoefficientVectorEnv
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


@pytest.mark.slow
def test_an_agent_learns_goes_on_and_is_exported(make_run: MakeRun) -> None:
    def start() -> tuple[CoefficientVectorEnv, CoefficientTraining]:
        env = CoefficientVectorEnv([make_runs(make_run), make_runs(make_run, epochs=2)], RULE, decisions=4)
        return env, CoefficientTraining("ppo", env, [SEEDS, SEEDS], 1.0, {}, seed=0)

    env, whole = start()
    for _ in range(3):
        figures = whole.update()
    assert np.isfinite(figures["return"])
    _, first = start()  # agents draw from the global generators, which they seed when they are made
    first.update()
    first.update()
    state = first.state_dict()
    _, second = start()
    second.load_state_dict(state)
    second.update()
    given = outputs(3)
    policy = whole.policy()
    torch.testing.assert_close(policy.coefficients(given), second.policy().coefficients(given))
    actions, _ = whole._agent.predict(RULE.context(given).numpy(), deterministic=True)
    torch.testing.assert_close(policy.coefficients(given), torch.from_numpy(env.scale * actions))


def test_off_policy_agents_learn_too(make_run: MakeRun) -> None:
    env = CoefficientVectorEnv(make_runs(make_run), RULE, decisions=4)
    training = CoefficientTraining("sac", env, [SEEDS], 1.0, {"learning_starts": 8}, seed=0)
    assert np.isfinite(training.update()["return"])
