"""Actions in [-1, 1] in place of temperatures, as off-the-shelf agents expect."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorActionWrapper, VectorEnv
from gymnasium.vector.utils import batch_space

from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.utils.choices import ActionScale


class TemperatureAction(
    VectorActionWrapper,  # without type arguments, which it takes from Gymnasium 1.4 on
    gym.utils.RecordConstructorArgs,
):
    """Lets agents act in ``[-1, 1]`` on a vector environment whose actions are temperatures.

    Args:
        env: has the single action space ``Box(t_min, t_max, (1,))``, or ``(2,)`` for teacher and student separately.
        scale: ``"log"``: equal steps of the action are equal ratios of the temperature; or ``"linear"``.

    Raises:
        UsageError: if the scale is unknown, or the action space is not a range of positive temperatures.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, temperature_min=1, temperature_max=16)
        >>> envs = TemperatureAction(envs)
        >>> envs.single_action_space
        Box(-1.0, 1.0, (1,), float32)
        >>> float(envs.actions(np.zeros((64, 1), np.float32))[0, 0])
        4.0
    """

    def __init__(self, env: VectorEnv[np.ndarray, np.ndarray, np.ndarray], scale: ActionScale = "log") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        space = env.single_action_space
        if not isinstance(space, spaces.Box):
            raise TypeError(f"expected a Box of temperatures, got the action space {space}")
        self.action_map = ActionMap(TemperatureRange(float(space.low.min()), float(space.high.max())), scale)
        self.single_action_space = spaces.Box(-1.0, 1.0, space.shape, dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def actions(self, actions: np.ndarray) -> np.ndarray:
        """Map actions to temperatures of the same shape, ``(N, 1)`` or ``(N, 2)``."""
        return self.action_map.to_temperature(check_numbers(actions))


def check_numbers(actions: np.ndarray) -> np.ndarray:
    """Return actions as float32, and refuse what is not a number."""
    actions = np.asarray(actions, dtype=np.float32)
    if np.isnan(actions).any():
        raise ValueError("an action is not a number")
    return actions
