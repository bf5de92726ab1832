"""Stock stable-baselines3 agents for environments of many slots, by name."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from agents.sb3.families import AGENTS, AgentFamily, check_agent_options
from agents.sb3.monitor import RunMonitor
from agents.sb3.wrapping import SHARED_OUT, AnyEnv, as_vec_env
from rlkd_env.errors import UsageError
from rlkd_env.models.engine import select_device

_SLOTS_FOR_A_GPU = 2048
"""From so many slots on a GPU updates an on-policy agent faster than a CPU does; see ``docs/performance.md``."""


def make_agent(
    agent: str | type[BaseAlgorithm],
    env: AnyEnv,
    *,
    calibrator: str = SHARED_OUT,
    normalize_reward: bool = True,
    steps_per_phase: int | None = None,
    device: str | torch.device = "auto",
    **overrides: Any,
) -> BaseAlgorithm:
    """Create a stock stable-baselines3 agent for an environment of many slots.

    Its defaults are those with which an agent learns within a run: a reward of its own for every slot, and a discount
    of 0, because a slot's next instance is another one, so that nothing follows from an action but its own reward.

    With ``tensorboard_log`` or ``verbose`` its log has the figures of student, temperatures and rewards too.

    Args:
        agent: a name in :data:`~agents.sb3.families.AGENTS`, ``package.module:name``, or an algorithm class of
            stable-baselines3's kind.
        env: an id of Gymnasium, an environment of ``gym.make``, a vector environment or a ``VecEnv``; whatever is
            missing is put around it, see :func:`~agents.sb3.wrapping.as_vec_env`.
        calibrator: how a reward that all slots share is shared out among them; ``"uniform"`` leaves it as it is.
        normalize_reward: divide rewards by the running std of their discounted sum (``VecNormalize``), as KD rewards
            are of the order of 1e-3.
        steps_per_phase: number of steps of the environment after which learning may pause; unless ``n_steps`` is given,
            a whole number of an on-policy agent's rollouts makes them up, so that no rollout goes on beyond them.
        device: where the agent's networks are; ``"auto"`` is what :func:`choose_device` says.
        overrides: arguments of the agent's class instead of the defaults chosen here, such as ``gamma=0.99``.

    Raises:
        UsageError: if the agent or an override is unknown, or actions are neither in ``[-1, 1]`` nor temperatures.
    """
    name = AGENTS.name_of(agent)
    family = AGENTS[name]
    agent_class = family.load()
    overrides = check_agent_options(name, overrides)
    vec_env = monitored = as_vec_env(env, calibrator)
    chosen = choose_device(vec_env, family) if device == "auto" else device
    arguments: dict[str, Any] = {
        "policy": "MlpPolicy",
        "device": select_device(str(chosen)),
        **family.options(vec_env.num_envs, None if "n_steps" in overrides else _updates_of(vec_env)),
    }
    if family.noise:
        numbers = int(np.prod(vec_env.action_space.shape or (1,)))
        arguments["action_noise"] = NormalActionNoise(np.zeros(numbers), np.full(numbers, family.noise))
    if "gamma" in inspect.signature(agent_class.__init__).parameters:
        arguments["gamma"] = 0.0
    if steps_per_phase is not None and "n_steps" in arguments and "n_steps" not in overrides:
        arguments["n_steps"] = _largest_divisor(steps_per_phase, arguments["n_steps"])
    arguments |= overrides
    if "n_steps" in arguments and "batch_size" in arguments.keys() - overrides.keys():
        arguments["batch_size"] = _largest_divisor(arguments["n_steps"] * vec_env.num_envs, arguments["batch_size"])
    if normalize_reward:
        vec_env = VecNormalize(vec_env, norm_obs=False, gamma=arguments.get("gamma", 1.0), epsilon=1e-12)
    try:
        with warnings.catch_warnings():
            # With many slots a GPU is faster, whatever stable-baselines3 says.
            warnings.filterwarnings("ignore", message="You are trying to run")
            made = agent_class(env=vec_env, **arguments)
    except Exception as error:  # stable-baselines3 checks few options, and what a wrong one raises is anything
        raise UsageError(f"agent {name!r} refuses its options: {error}") from error
    if not overrides.keys() & {"verbose", "tensorboard_log"}:
        made.set_logger(Logger(None, []))  # the usual one leaves an empty folder in the temporary directory
    elif isinstance(monitored, RunMonitor):
        monitored.record_for(made)
    return made


def choose_device(env: VecEnv, family: AgentFamily) -> torch.device:
    """Return the CPU, or where the environment's run is if that is a GPU which updates the agent faster.

    An agent's matrices are so small that a GPU takes all its time to launch its kernels. This pays only for on-policy
    agents of many slots, whose every gradient step is on thousands of rows.
    """
    if family.is_on_policy and env.num_envs >= _SLOTS_FOR_A_GPU and env.has_attr("template"):
        return env.get_attr("template")[0].device
    return torch.device("cpu")


def _updates_of(env: VecEnv) -> int | None:
    """Return the number of updates of the environment's run; None if it is no run."""
    return int(env.get_attr("template")[0].total_steps) if env.has_attr("template") else None


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, min(number, limit) + 1) if number % divisor == 0)


def continue_from(agent: BaseAlgorithm, observation: np.ndarray) -> None:
    """Let an agent's next ``learn(..., reset_num_timesteps=False)`` continue from an observation ``(N, d)``."""
    agent._last_obs, agent._last_original_obs = observation.copy(), observation.copy()
    agent._last_episode_starts = np.ones(len(observation), dtype=bool)
    normalizer = agent.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.old_obs = observation.copy()
