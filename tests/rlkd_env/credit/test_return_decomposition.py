"""Credit learned from rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlkd_env.credit.return_decomposition import ReturnDecomposition
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


def learned_from(count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[ReturnDecomposition, list[int]]:
    """A decomposition that has learned from so many rewards, and after how many it was fitted."""
    fitted: list[int] = []
    monkeypatch.setattr(
        ReturnDecomposition, "_fit", lambda self: fitted.append(len(self.state_dict()["arrays"]["rewards"]))
    )
    decomposition = ReturnDecomposition(num_features=1)
    for number in range(count):
        decomposition.credit(np.full((2, 1), number), np.ones((2, 1)))
        decomposition.learn(float(number))
    return decomposition, fitted


def test_the_fits_of_a_long_run_are_ever_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fitted = learned_from(4200, monkeypatch)
    assert fitted == [*range(32, 2048, 16), *range(2048, 4096, 32), 4096, 4160]


def test_nothing_learned_is_forgotten_and_a_restored_decomposition_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decomposition, _ = learned_from(200, monkeypatch)
    arrays = decomposition.state_dict()["arrays"]
    assert arrays["rewards"].tolist() == [*range(200)]
    assert arrays["features"][:, 1].tolist() == [*range(200)]  # the mean state
    restored = ReturnDecomposition(num_features=1)
    restored.load_state_dict(decomposition.state_dict())
    decomposition.learn(-1.0)  # which the restored one must not see
    restored.learn(7.0)
    assert restored.state_dict()["arrays"]["rewards"].tolist() == [*range(200), 7.0]
