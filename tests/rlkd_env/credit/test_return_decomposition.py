"""Credit learned from rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.wrappers import CalibratedReward, TemperatureAction


def test_return_decomposition_learns_from_the_actions_that_were_made() -> None:
    def learned(low: float, high: float, refused: bool) -> dict[str, torch.Tensor]:
        envs = CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu")))
        envs.reset(seed=0)
        for _ in range(3):
            if refused:
                with pytest.raises(ValueError, match="not a number"):
                    envs.step(np.full((16, 1), np.nan, np.float32))
            envs.step(np.repeat(np.array([[low], [high]], np.float32), 8, axis=0))
        return envs.state_dict()["decomposition"]["arrays"]

    expected, actual = learned(-1.0, 1.0, refused=False), learned(-np.inf, 1e4, refused=True)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name
