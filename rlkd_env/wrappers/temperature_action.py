"""Actions in [-1, 1] in place of temperatures, as off-the-shelf agents expect."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorActionWrapper, VectorEnv
from gymnasium.vector.utils import batch_space

from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.utils.choices import ActionScale


class TemperatureAction(
    VectorActionWrapper,  # without type arguments, which it takes from Gymnasium 1.4 on
    gym.utils.RecordConstructorArgs,
):
    """Lets agents act in ``[-1, 1]`` on an environment whose actions are temperatures.

    The registered ids act so already, on the log scale; ``action="temperature"`` makes them take temperatures. A single
    environment (``gym.Env``) gets a :class:`SingleTemperatureAction`.

    Args:
        env: has the single action space ``Box(t_min, t_max, (1,))``, or ``(2,)`` for teacher and student separately; or
            a single environment, whose action space may have any shape.
        scale: ``"log"``: equal steps of the action are equal ratios of the temperature; or ``"linear"``.

    Raises:
        UsageError: if the scale is unknown, or the action space is not a range of positive temperatures.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> settings = {"action": "temperature", "temperature_min": 1, "temperature_max": 16}
        >>> envs = TemperatureAction(gym.make_vec("rlkd/Digits-v0", num_envs=64, **settings))
        >>> envs.single_action_space
        Box(-1.0, 1.0, (1,), float32)
        >>> float(envs.actions(np.zeros((64, 1), np.float32))[0, 0])
        4.0
        >>> TemperatureAction(gym.make("rlkd/Digits-v0", **settings)).action_space
        Box(-1.0, 1.0, (64,), float32)
    """

    def __new__(cls, env: Any = None, *args: Any, **keywords: Any) -> Any:
        """Create the wrapper that suits the environment; what is copied or unpickled has none yet."""
        if isinstance(env, gym.Env):
            return SingleTemperatureAction(env, *args, **keywords)
        return super().__new__(cls)

    def __init__(
        self, env: VectorEnv[np.ndarray, np.ndarray, np.ndarray] | gym.Env[Any, Any], scale: ActionScale = "log"
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(cast("VectorEnv[Any, Any, Any]", env))
        space = self.env.single_action_space
        self.action_map = ActionMap(_range_of(space), scale)
        self.single_action_space = spaces.Box(-1.0, 1.0, space.shape, dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def actions(self, actions: np.ndarray) -> np.ndarray:
        """Map actions to temperatures of the same shape, ``(N, 1)`` or ``(N, 2)``."""
        return self.action_map.to_temperature(check_numbers(actions))


class SingleTemperatureAction(gym.ActionWrapper[np.ndarray, np.ndarray, np.ndarray], gym.utils.RecordConstructorArgs):
    """:class:`TemperatureAction` of a single environment, with the same arguments."""

    def __init__(self, env: gym.Env[np.ndarray, np.ndarray], scale: ActionScale = "log") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        self.action_map = ActionMap(_range_of(env.action_space), scale)
        self.action_space = spaces.Box(-1.0, 1.0, env.action_space.shape, dtype=np.float32)

    def action(self, action: np.ndarray) -> np.ndarray:
        """Map actions to temperatures of the same shape."""
        return self.action_map.to_temperature(check_numbers(action))


def _range_of(space: spaces.Space[Any]) -> TemperatureRange:
    """Return the range of the temperatures that an action space holds."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"expected a Box of temperatures, got the action space {space}")
    if np.all(space.low == -1.0) and np.all(space.high == 1.0):
        raise UsageError(
            "the actions lie in [-1, 1] already: leave TemperatureAction away, or make the environment with "
            'action="temperature"'
        )
    return TemperatureRange(float(space.low.min()), float(space.high.max()))


def check_numbers(actions: np.ndarray) -> np.ndarray:
    """Return actions as float32, and refuse what is not a number."""
    actions = np.asarray(actions, dtype=np.float32)
    if np.isnan(actions).any():
        raise ValueError("an action is not a number")
    return actions
