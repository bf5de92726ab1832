"""The wrapper that hands the run an explorer."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import pytest
from watching import watch

import rlkd_env  # noqa: F401
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import EfficientExploration, TemperatureAction

MakeRun = Callable[..., DistillationRun]


@pytest.mark.parametrize("batches", ["pairs", "all"])
def test_the_wrapped_environment_keeps_the_contract(make_run: MakeRun, batches: str) -> None:
    envs = KDVectorEnv(run=make_run())
    envs = EfficientExploration(envs, Exploration(first_epoch=2, interval=1, batches=batches))
    check_vector_env(TemperatureAction(envs))


def test_the_wrapper_hands_the_explorer_to_the_run_whatever_is_between(make_run: MakeRun) -> None:
    run = make_run()
    mixed: list[float] = []

    class Recorder(RunHook):
        def on_step(self, run: DistillationRun, result: StepResult) -> None:
            mixed.append(float(result.metrics["mixed_share"]))

    watch(run, Recorder())
    settings = Exploration(first_epoch=2, last_epoch=2, interval=1, first_share=0.9)
    envs = EfficientExploration(TemperatureAction(KDVectorEnv(run=run)), settings)
    assert envs.explorer is run.sampler
    envs.reset(seed=0)
    for _ in range(12):
        envs.step(envs.action_space.sample())
    assert mixed == [0.0] * 4 + [1.0] * 4 + [0.0] * 4


def test_another_environment_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a KDVectorEnv, not SyncVectorEnv"):
        EfficientExploration(gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"))
