"""Instance rewards out of a shared, perhaps delayed, batch reward."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from rlkd_env.calibration import CALIBRATORS
from rlkd_env.env import KDVectorEnv
from rlkd_env.registry import UsageError


class CalibratedReward(VectorWrapper, gym.utils.RecordConstructorArgs):
    """Gives every slot of a KD run its own part of the batch reward.

    Reward of instance i: its credit, plus what the credits' mean leaves of the batch reward. So the mean over the
    instances is the batch reward. With a delayed reward (``reward_interval=k``) that holds for the sum over the
    interval: a slot earns its credit at every step, and the rest of the whole interval with the measurement. An update
    that diverges earns no credit, only the penalty.

    Args:
        env: a :class:`~rlkd_env.env.KDVectorEnv`, wrapped or not.
        calibrator: a name in :data:`~rlkd_env.calibration.CALIBRATORS`.
        reference: temperature that credits are relative to; None takes the geometric mean of the run's range.

    Attributes:
        calibrator: the hook that looks at the run's updates.
        metrics: ``reward_spread``, the standard deviation of the latest credits over the batch.

    Raises:
        UsageError: if the calibrator is unknown or the environment is no KD run.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64)
        >>> _ = envs.reset(seed=0)
        >>> temperatures = np.linspace(1, 8, 64, dtype=np.float32)[:, None]
        >>> _, rewards, *_ = envs.step(temperatures)
        >>> bool(rewards.std() > 0)
        False
        >>> envs = CalibratedReward(envs, "gradient")
        >>> _ = envs.reset(seed=0)
        >>> _, rewards, *_ = envs.step(temperatures)
        >>> bool(rewards.std() > 0)
        True
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], calibrator: str = "gradient", reference: float | None = None
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, calibrator=calibrator, reference=reference)
        VectorWrapper.__init__(self, env)
        create = CALIBRATORS[calibrator]
        if not isinstance(env.unwrapped, KDVectorEnv):
            raise UsageError(f"CalibratedReward needs a KDVectorEnv, not {env.unwrapped}")
        self._run = env.unwrapped.run
        self.calibrator = create(self._run, reference)
        self._run.hooks.append(self.calibrator)
        self._unpaid = 0.0
        self.metrics: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment and begin a new interval."""
        self._unpaid = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment and calibrate its rewards ``(N,)``."""
        self.calibrator.credit = None
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        latest = self._latest_credit()
        if latest is None:  # no update was made: the step was a reset
            return observation, rewards, terminated, truncated, info
        credit = latest.double().cpu().numpy()
        if not np.isfinite(credit).all() or np.any(info.get("diverged", False)):
            credit = np.zeros(self.num_envs)
        self.metrics = {"reward_spread": float(credit.std())}
        self._unpaid += float(np.mean(rewards, dtype=np.float64)) - credit.mean()
        if self._run.reward.is_measured:
            credit = credit + self._unpaid
            self._unpaid = 0.0
        return observation, credit.astype(np.float32), terminated, truncated, info

    def _latest_credit(self) -> Tensor | None:
        return self.calibrator.credit

    def close(self, **kwargs: Any) -> None:
        """Stop watching the run and close the environment."""
        if self.calibrator in self._run.hooks:
            self._run.hooks.remove(self.calibrator)
        self.env.close(**kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next rewards depend on besides the run."""
        return {"unpaid": self._unpaid}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._unpaid = state["unpaid"]
