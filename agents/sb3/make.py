"""Stock stable-baselines3 agents for slot environments, by name.

:class:`VectorEnvAdapter` connects the two worlds; :func:`make_agent` picks defaults that make sense when one step of
the environment is a batch of slots.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.registry import Registry

_HIDDEN_LAYERS = [64, 64]
_ROWS_PER_UPDATE = 1024
_STEPS_OF_MANY_SLOTS = 16
"""KD steps of PPO's rollouts at least, which are 1,024 rows with 64 slots."""


def _on_policy(num_envs: int) -> dict[str, Any]:
    """Short rollouts: stable-baselines3's 2048 steps would be 2048 rows *per slot*."""
    return {
        "n_steps": max(2, _ROWS_PER_UPDATE // num_envs),
        "gae_lambda": 0.95,
        # A third of the range is what exploration needs; with the usual deviation of 1 most actions hit its ends.
        "policy_kwargs": {"net_arch": _HIDDEN_LAYERS, "log_std_init": -1.0},
    }


def _batched(num_envs: int) -> dict[str, Any]:
    """Full-batch gradient steps: half the time of minibatches, as a step's cost hardly depends on its rows."""
    return {**_on_policy(num_envs), "batch_size": max(2 * num_envs, _ROWS_PER_UPDATE)}


def _ppo(num_envs: int) -> dict[str, Any]:
    """Five gradient steps a rollout; with many slots each sees other rows, as passes over all would take long."""
    n_steps = max(_ROWS_PER_UPDATE // num_envs, _STEPS_OF_MANY_SLOTS)
    rows = n_steps * num_envs
    return {
        **_batched(num_envs),
        "n_steps": n_steps,
        "batch_size": max(2 * num_envs, _ROWS_PER_UPDATE, rows if rows < 4 * _ROWS_PER_UPDATE else rows // 4),
        "n_epochs": max(1, 5 * _ROWS_PER_UPDATE // rows),
        "learning_rate": 1e-3,
    }


def _off_policy(num_envs: int) -> dict[str, Any]:
    """One gradient step a KD step, after ten KD steps of random actions."""
    return {
        "buffer_size": 100_000,
        "learning_starts": 10 * num_envs,
        "train_freq": 1,
        "gradient_steps": 1,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "policy_kwargs": {"net_arch": _HIDDEN_LAYERS},
    }


def _maximum_entropy(num_envs: int) -> dict[str, Any]:
    """A small entropy bonus from the start: tuned down from 1 it would outlast a short KD run."""
    return {**_off_policy(num_envs), "ent_coef": "auto_0.1"}


@dataclass(frozen=True)
class AgentFamily:
    """Where an agent's class is, its defaults for a number of slots, and what makes it a bandit.

    A deterministic policy explores by noise on the action only, each of whose numbers has this standard deviation.
    """

    module: str
    class_name: str
    defaults: Callable[[int], dict[str, Any]]
    bandit: dict[str, Any]
    noise: float = 0.0

    def load(self) -> type[BaseAlgorithm]:
        """Import the class."""
        return getattr(import_module(self.module), self.class_name)


_BANDIT_ON_POLICY = {"gamma": 0.0, "gae_lambda": 0.0}
_BANDIT_OFF_POLICY = {"gamma": 0.0}

AGENTS: Registry[AgentFamily] = Registry("agent")
"""The agents that can be made here; tqc, crossq and trpo only where sb3-contrib is installed."""

for _class in (PPO, A2C, SAC, TD3, DDPG):
    _name = _class.__name__.lower()
    _defaults = {"ppo": _ppo, "a2c": _on_policy, "sac": _maximum_entropy}.get(_name, _off_policy)
    _bandit = _BANDIT_ON_POLICY if _name in ("ppo", "a2c") else _BANDIT_OFF_POLICY
    _noise = 0.2 if _defaults is _off_policy else 0.0
    AGENTS.register(_name)(AgentFamily("stable_baselines3", _class.__name__, _defaults, _bandit, _noise))
if find_spec("sb3_contrib") is not None:
    AGENTS.register("tqc")(AgentFamily("sb3_contrib", "TQC", _maximum_entropy, _BANDIT_OFF_POLICY))
    AGENTS.register("crossq")(AgentFamily("sb3_contrib", "CrossQ", _maximum_entropy, _BANDIT_OFF_POLICY))
    AGENTS.register("trpo")(AgentFamily("sb3_contrib", "TRPO", _batched, _BANDIT_ON_POLICY))


def default_options(name: str, num_envs: int) -> dict[str, Any]:
    """Return the arguments that :func:`make_agent` gives an agent's class for this number of slots.

    Raises:
        UsageError: if the agent is unknown.
    """
    return AGENTS[name].defaults(num_envs)


def make_agent(
    name: str,
    env: VectorEnv[Any, Any, Any] | VecEnv,
    *,
    bandit: bool = False,
    normalize_reward: bool = True,
    **overrides: Any,
) -> BaseAlgorithm:
    """Create a stock stable-baselines3 agent for an environment of many slots.

    Args:
        name: a name in :data:`AGENTS`.
        env: a Gymnasium vector environment, or a ``VecEnv``. Its actions should lie in ``[-1, 1]``; see
            :class:`~rlkd_env.wrappers.TemperatureAction`.
        bandit: look no further than the next reward (discount 0). A slot's next instance is another one, so the value
            of "what comes after" is that of the run, not of the instance.
        normalize_reward: divide rewards by the running deviation of their discounted sum (``VecNormalize``), as KD
            rewards are of the order of 1e-3.
        overrides: arguments of the agent's class in place of the defaults chosen here.

    Raises:
        UsageError: if the agent or an override is unknown, or an on-policy agent meets actions that are not scaled.
    """
    if name in ("tqc", "crossq", "trpo") and name not in AGENTS:
        raise UsageError(f"agent {name!r} needs sb3-contrib: pip install 'rlkd[contrib]'")
    family = AGENTS[name]
    agent_class = family.load()
    valid = [
        argument for argument in inspect.signature(agent_class.__init__).parameters if argument not in ("self", "env")
    ]
    for override in overrides:
        if override not in valid:
            raise unknown_name(f"option of agent {name!r}", override, valid)
    vec_env = env if isinstance(env, VecEnv) else VectorEnvAdapter(env)
    space = vec_env.action_space
    if isinstance(space, spaces.Box) and not (np.all(space.low == -1.0) and np.all(space.high == 1.0)):
        raise UsageError(
            f"agents act in [-1, 1], not in {space}: wrap the environment in TemperatureAction or RescaleAction"
        )
    arguments: dict[str, Any] = {"policy": "MlpPolicy", "device": "cpu", **family.defaults(vec_env.num_envs)}
    if family.noise:
        numbers = int(np.prod(space.shape or (1,)))
        arguments["action_noise"] = NormalActionNoise(np.zeros(numbers), np.full(numbers, family.noise))
    arguments |= family.bandit if bandit else {"gamma": 0.99}
    arguments |= overrides
    if normalize_reward:
        vec_env = VecNormalize(vec_env, norm_obs=False, gamma=arguments["gamma"], epsilon=1e-12)
    try:
        return agent_class(env=vec_env, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"agent {name!r} refuses its options: {error}") from None


def continue_from(agent: BaseAlgorithm, observation: np.ndarray) -> None:
    """Let an agent's next ``learn(..., reset_num_timesteps=False)`` go on from here, without a reset.

    Args:
        agent: made by :func:`make_agent`.
        observation: ``(N, d)`` current observation of its environment.
    """
    agent._last_obs = observation.copy()
    agent._last_original_obs = observation.copy()
    agent._last_episode_starts = np.ones(len(observation), dtype=bool)
    normalizer = agent.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.old_obs = observation.copy()


__all__ = ["AGENTS", "VectorEnvAdapter", "continue_from", "default_options", "make_agent"]
