"""The whole state of a stable-baselines3 agent as tensors and plain values, so that learning goes on bit for bit.

stable-baselines3's own ``save`` pickles objects; what is kept here can be read with ``weights_only=True``.
"""

from __future__ import annotations

from copy import deepcopy
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

_COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")
_REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def agent_state(agent: BaseAlgorithm) -> dict[str, Any]:
    """Return the agent's networks, optimisers, counters, replay buffer, reward normalisation and last observation.

    Rollout buffers of on-policy agents are not part of it: call this between rollouts. Neither is what RecurrentPPO
    remembers, nor what ARS learns beside its policy.
    """
    state = {
        "parameters": agent.get_parameters(),
        "variables": {name: attrgetter(name)(agent) for name in agent._get_torch_save_params()[1]},
        "counters": {name: getattr(agent, name) for name in _COUNTERS},
        "last_observation": _tensor(agent._last_obs),
        "last_episode_starts": _tensor(agent._last_episode_starts),
        "normalizer": _normalizer_state(agent),
        "replay_buffer": _replay_state(agent) if isinstance(agent, OffPolicyAlgorithm) else None,
        "action_space": agent.action_space.np_random.bit_generator.state,
    }
    return deepcopy(state)


def load_agent_state(agent: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Restore :func:`agent_state` into an agent made with the same arguments."""
    state = deepcopy(state)
    agent.set_parameters(state["parameters"], device=agent.device)
    for name, value in state["variables"].items():
        attrgetter(name)(agent).data.copy_(value)
    for name, value in state["counters"].items():
        setattr(agent, name, value)
    agent._last_obs, agent._last_original_obs = _array(state["last_observation"]), _array(state["last_observation"])
    agent._last_episode_starts = _array(state["last_episode_starts"])
    agent.action_space.np_random.bit_generator.state = state["action_space"]
    _load_normalizer_state(agent, state["normalizer"])
    if isinstance(agent, OffPolicyAlgorithm):
        _load_replay_state(agent, state["replay_buffer"])


def _tensor(array: Any) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.array(array))


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy().copy()


def _normalizer_state(agent: BaseAlgorithm) -> dict[str, Any] | None:
    normalizer = agent.get_vec_normalize_env()
    if normalizer is None:
        return None
    state = {"returns": _tensor(normalizer.returns), "reward": _running_state(normalizer.ret_rms)}
    if normalizer.norm_obs:
        state["observation"] = _running_state(normalizer.obs_rms)
    return state


def _load_normalizer_state(agent: BaseAlgorithm, state: dict[str, Any] | None) -> None:
    normalizer = agent.get_vec_normalize_env()
    if normalizer is None or state is None:
        return
    normalizer.returns = _array(state["returns"])
    _load_running_state(normalizer.ret_rms, state["reward"])
    if "observation" in state:
        _load_running_state(normalizer.obs_rms, state["observation"])


def _running_state(statistics: Any) -> dict[str, Any]:
    return {"mean": _tensor(statistics.mean), "var": _tensor(statistics.var), "count": float(statistics.count)}


def _load_running_state(statistics: Any, state: dict[str, Any]) -> None:
    statistics.mean, statistics.var = _array(state["mean"]), _array(state["var"])
    statistics.count = state["count"]


def _replay_state(agent: OffPolicyAlgorithm) -> dict[str, Any]:
    buffer: Any = agent.replay_buffer
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: _tensor(getattr(buffer, name)[:filled]) for name in _REPLAY_ARRAYS if hasattr(buffer, name)}
    return {"pos": buffer.pos, "full": buffer.full, "arrays": arrays}


def _load_replay_state(agent: OffPolicyAlgorithm, state: dict[str, Any]) -> None:
    buffer: Any = agent.replay_buffer
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name, values in state["arrays"].items():
        getattr(buffer, name)[: len(values)] = values.numpy()
