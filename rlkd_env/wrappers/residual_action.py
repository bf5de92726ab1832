"""Actions in [-1, 1] that change a rule's temperatures, so that an agent starts from the rule."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ResidualMap
from rlkd_env.instances.temperature import Policy
from rlkd_env.utils.choices import AGENT_WIDTH, AroundLevel
from rlkd_env.wrappers.temperature_action import check_numbers


class ResidualAction(
    VectorWrapper,  # without type arguments, which it takes from Gymnasium 1.4 on
    gym.utils.RecordConstructorArgs,
):
    """Lets agents act around a rule on a vector environment, whatever its own actions are.

    See :class:`~rlkd_env.instances.actions.ResidualMap` for what an action does; with the action 0 everywhere, the
    student is the rule's own.

    Args:
        env: a :class:`~rlkd_env.envs.vector_env.KDVectorEnv`, wrapped or not. With separate temperatures an action is
            two numbers.
        around: the rule, or a policy in its place: a function from a batch's outputs to temperatures that nothing else
            changes. It may read the student's logits with gradient (``has_gradient``) if there is one run or all runs
            are stacked.
        width: logarithm of the largest multiple of the rule's temperatures.
        level: whether the mean action of each run's batch is taken away (``"keep"``) or not (``"free"``).

    Raises:
        UsageError: if the environment, the width, the level or the rule does not suit; the message says why.

    Example:
        >>> import gymnasium as gym, rlkd_env, torch
        >>> from rlkd_env.instances.temperature import Temperature
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64)
        >>> envs = ResidualAction(envs, lambda outputs: Temperature.shared(torch.full(outputs.labels.shape, 4.0)))
        >>> envs.single_action_space
        Box(-1.0, 1.0, (1,), float32)
    """

    @usual_torch_settings()
    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        around: Policy,
        width: float = AGENT_WIDTH,
        level: AroundLevel = "keep",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, around=around, width=width, level=level)
        super().__init__(env)
        if not isinstance(env.unwrapped, KDVectorEnv):
            raise UsageError(f"actions around a rule need a KDVectorEnv, not {type(env.unwrapped).__name__}")
        self._slots = env.unwrapped
        if env.single_action_space != self._slots.single_action_space:
            raise UsageError("nothing else may change actions around a rule: leave TemperatureAction away")
        run = self._slots.template
        self.action_map = ResidualMap(around, run.temperature_range, width, level)
        if self._slots.num_runs > 1:
            self._slots.runs.check_policy(around)
        self._device = run.device
        self.single_action_space = spaces.Box(-1.0, 1.0, env.single_action_space.shape or (1,), dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    @usual_torch_settings()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Update the students with the temperatures that the actions ``(N, 1)`` or ``(N, 2)`` make of the rule's.

        Raises:
            ValueError: if the shape is wrong or an action is not a number.
        """
        actions = check_numbers(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"expected actions of shape {self.action_space.shape}, got {actions.shape}")
        outputs = self._slots.outputs
        if outputs is None:  # the step before the first reset, which only resets
            return self.env.step(actions)
        with torch.set_grad_enabled(self.action_map.has_gradient):
            temperature = self.action_map.temperature(torch.from_numpy(actions).to(self._device), outputs)
        return self.env.step(temperature)
