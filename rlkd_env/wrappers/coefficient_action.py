"""Actions that are the coefficients of a temperature rule, held for several updates."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlkd_env.envs.coefficient_env import (
    DECISIONS,
    check_decisions,
    check_scale,
    coefficient_spaces,
    coefficients_of,
    next_decision,
)
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.instances.coefficients import CoefficientRule


class CoefficientAction(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], gym.utils.RecordConstructorArgs):
    """Lets an agent choose a temperature for every instance with a few numbers and a short horizon.

    The action ``(n,)`` in ``[-1, 1]``, times ``scale``, is the coefficients of a
    :class:`~rlkd_env.instances.coefficients.CoefficientRule` for the next updates; the observation is the rule's
    context; the reward is the sum of the updates' rewards. With the environment's reward ``log_probe_loss`` this is
    the fall of the logarithm of the probe loss.

    Args:
        env: a :class:`~rlkd_env.envs.kd_env.KDEnv`, whose range clips the rule's temperatures.
        rule: the rule; None takes that of the usual features.
        decisions: actions a run, each held for an equal part of its updates, for which there must be room.
        scale: coefficient at an action of 1, which is positive.

    Raises:
        UsageError: if the run has no room for the decisions, or the scale is not positive.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> env = gym.make("rlkd/Digits-v0", reward="log_probe_loss", reward_interval=24)
        >>> env = CoefficientAction(env, decisions=20)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.action_space.shape
        ((4,), (4,))
    """

    @usual_torch_settings()
    def __init__(
        self,
        env: gym.Env[np.ndarray, np.ndarray],
        rule: CoefficientRule | None = None,
        decisions: int = DECISIONS,
        scale: float = 0.5,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, rule=rule, decisions=decisions, scale=scale)
        super().__init__(env)
        base = env.unwrapped
        if not isinstance(base, KDEnv):
            raise TypeError(f"expected a KDEnv, got {base}")
        self._run = base.run
        self.rule = rule or CoefficientRule()
        self.decisions = check_decisions(decisions, self._run.total_steps)
        self.scale = check_scale(scale)
        self.observation_space, self.action_space = coefficient_spaces(self.rule)

    @usual_torch_settings()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a fresh student."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._context(), info

    @usual_torch_settings()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Update the student up to the next decision with the coefficients of an action ``(n,)``."""
        coefficients = coefficients_of(np.asarray(action)[None], self.rule, self.scale, self._run.device)
        total = 0.0
        run, bounds = self._run, self._run.temperature_range
        end = next_decision(run.step_count, run.total_steps, self.decisions)
        while run.step_count < end:
            # These are temperatures, whatever the environment's own actions are.
            chosen: Any = self.rule.temperature(coefficients, run.outputs, bounds)
            _, reward, terminated, truncated, info = self.env.step(chosen)
            total += float(reward)
            if terminated or truncated:
                break
        return self._context(), total, terminated, truncated, info

    def _context(self) -> np.ndarray:
        return self.rule.context(self._run.outputs)[0].cpu().numpy()
