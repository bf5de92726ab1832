"""Whatever a client has set in PyTorch, students learn, and learn the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agents.rules.create import create_rule
from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import CalibratedReward, CoefficientAction, EfficientExploration, ResidualAction


@contextmanager
def other_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "defaults": other_defaults,
}
SHORT = {"epochs": 2, "device": "cpu", "action": "normalized"}
Make = Callable[..., Any]
ENVIRONMENTS: dict[str, Make] = {
    "single": lambda **more: KDEnv(batch_size=16, **SHORT, **more),
    "vector": lambda **more: KDVectorEnv(16, **SHORT, **more),
    **{
        mode: lambda mode=mode, **more: KDVectorEnv(32, num_runs=2, run_mode=mode, **SHORT, **more)
        for mode in ("stacked", "serial", "workers")
    },
    "adapter": lambda **more: VectorEnvAdapter(KDVectorEnv(16, **SHORT, **more)),
    "coefficients": lambda **more: CoefficientAction(KDEnv(batch_size=16, **SHORT, **more), decisions=4),
    "around": lambda **more: ResidualAction(KDVectorEnv(16, **SHORT, **more), create_rule("lskd", {"gradient": True})),
    "credited": lambda **more: CalibratedReward(KDVectorEnv(16, **SHORT, **more), "last_layer"),
    "exploring": lambda **more: EfficientExploration(
        KDVectorEnv(16, **SHORT, **more), Exploration(first_epoch=2, last_epoch=2, interval=1)
    ),
}


def trajectory(make: Make, teacher: nn.Module, settings: AbstractContextManager[Any]) -> list[np.ndarray]:
    """Make an environment, and step it to the end of its first run and into the next."""
    with settings:
        env = make(teacher=teacher)
        if isinstance(env, VectorEnvAdapter):
            env.seed(3)
            shape, found = (env.num_envs, *env.action_space.shape), [env.reset()]
        else:
            shape, found = env.action_space.shape, [env.reset(seed=3)[0]]
        generator = np.random.default_rng(0)
        for _ in range(20 if isinstance(env, KDVectorEnv | VectorEnvAdapter) else 4):
            observation, reward, *_ = env.step(generator.uniform(-1, 1, shape).astype(np.float32))
            found += [observation, np.asarray(reward)]
        env.close()
        return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_trajectory_is_the_same(name: str, setting: str, digits_teacher: nn.Module) -> None:
    expected = trajectory(ENVIRONMENTS[name], digits_teacher, torch.enable_grad())
    found = trajectory(ENVIRONMENTS[name], digits_teacher, SETTINGS[setting]())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
