"""The agents by name: their classes, how they are set up for many slots, and what their options must be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.models.engine import select_device
from rlkd_env.utils.options import (
    Bounds,
    Count,
    NonNegative,
    NonNegativeInt,
    Positive,
    Seed,
    UnitInterval,
    read_value,
)
from rlkd_env.utils.registry import Registry, import_by_path

_HIDDEN_LAYERS = [64, 64]
_ROWS_PER_UPDATE = 1024
_QUICK_ADAM = {"eps": 1e-5, "foreach": True}
"""Adam as stable-baselines3 has it, but through all parameters in one call; the numbers are the same, bit for bit."""
_STEPS_OF_MANY_SLOTS = 16
"""KD steps of PPO's rollouts at least, which are 1,024 rows with 64 slots."""
_LONG_ROLLOUTS = 100
"""Rollouts of four times as many rows in a run that is long enough to learn from every row once."""


def _on_policy(num_envs: int) -> dict[str, Any]:
    """Short rollouts: stable-baselines3's default of 2048 steps would be 2048 rows *per slot*."""
    return {
        "n_steps": max(2, _ROWS_PER_UPDATE // num_envs),
        "gae_lambda": 0.95,
        # A std of a third of the range is what exploration needs; with the usual 1 most actions hit the ends.
        "policy_kwargs": {"net_arch": _HIDDEN_LAYERS, "log_std_init": -1.0},
    }


def _batched(num_envs: int) -> dict[str, Any]:
    """Full-batch gradient steps: half the time of minibatches, as a step costs about the same for all batch sizes."""
    options = _on_policy(num_envs)
    return {**options, "batch_size": options["n_steps"] * num_envs}


def _ppo(num_envs: int) -> dict[str, Any]:
    """Five gradient steps a rollout; with many slots each sees different rows, as full passes would take too long."""
    n_steps = max(_ROWS_PER_UPDATE // num_envs, _STEPS_OF_MANY_SLOTS)
    rows = n_steps * num_envs
    options = _batched(num_envs)
    return {
        **options,
        "policy_kwargs": {**options["policy_kwargs"], "optimizer_kwargs": _QUICK_ADAM},
        "n_steps": n_steps,
        "batch_size": rows if rows < 4 * _ROWS_PER_UPDATE else rows // 4,
        "n_epochs": max(1, 5 * _ROWS_PER_UPDATE // rows),
        "learning_rate": 1e-3,
    }


def _learned_from_once(options: dict[str, Any], num_envs: int, updates: int) -> dict[str, Any]:
    """Return longer rollouts, each row of which is learned from once, for runs that have a hundred of them.

    A gradient step costs the same, but there are a fifth as many of them for a KD step.
    """
    n_steps = max(options["n_steps"], 4 * _ROWS_PER_UPDATE // num_envs)
    if updates < _LONG_ROLLOUTS * n_steps:
        return {}
    return {"n_steps": n_steps, "batch_size": n_steps * num_envs // 4, "n_epochs": 1}


def _recurrent(num_envs: int) -> dict[str, Any]:
    """PPO whose policy remembers: a slot's memory is that of the run, because its instances are others every time."""
    options = _ppo(num_envs)
    return {**options, "policy": "MlpLstmPolicy", "policy_kwargs": {**options["policy_kwargs"], "lstm_hidden_size": 64}}


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
    """A small entropy bonus from the start: tuned down from the usual 1 it would outlast a short KD run."""
    return {**_off_policy(num_envs), "ent_coef": "auto_0.1"}


def _random_search(num_envs: int) -> dict[str, Any]:  # noqa: ARG001
    """Eight runs an update: four random directions, each forth and back."""
    return {"policy": "LinearPolicy", "n_delta": 4, "n_top": 2, "delta_std": 0.1, "policy_kwargs": {"with_bias": True}}


_ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("learning_rate", "clip_range", "clip_range_vf", "max_grad_norm", "target_kl"), Positive),
    **dict.fromkeys(("rms_prop_eps", "line_search_shrinking_factor", "cg_damping", "delta_std"), Positive),
    **dict.fromkeys(("ent_coef", "vf_coef", "target_policy_noise", "target_noise_clip"), NonNegative),
    **dict.fromkeys(("gamma", "gae_lambda", "tau"), UnitInterval),
    **dict.fromkeys(("n_steps", "n_epochs", "batch_size", "buffer_size", "train_freq", "policy_delay"), Count),
    **dict.fromkeys(("stats_window_size", "n_critic_updates", "cg_max_steps", "line_search_max_iter"), Count),
    **dict.fromkeys(("sub_sampling_factor", "target_update_interval", "n_delta", "n_top", "n_eval_episodes"), Count),
    **dict.fromkeys(("learning_starts", "top_quantiles_to_drop_per_net", "verbose"), NonNegativeInt),
    **dict.fromkeys(("gradient_steps", "sde_sample_freq"), Annotated[int, Bounds(at_least=-1)]),
    **dict.fromkeys(("use_sde", "normalize_advantage", "use_rms_prop", "optimize_memory_usage"), bool),
    **dict.fromkeys(("use_sde_at_warmup", "zero_policy"), bool),
    "target_entropy": float,
    "seed": Seed,
}
"""What arguments of stable-baselines3's and sb3-contrib's agents must be."""
_TUNED = ("ent_coef", "target_entropy")
"""Arguments that may be auto."""
_BUFFERS = ("replay_buffer_class", "replay_buffer_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs")
_OBJECTS = ("policy_kwargs", "action_noise", *_BUFFERS)


@dataclass(frozen=True)
class AgentFamily:
    """An agent's class and how it is set up.

    Attributes:
        algorithm: the class, or where it is as ``package.module:name``.
        defaults: the function from a number of slots to arguments of the class.
        is_on_policy: whether the agent learns from what its latest policy did, rather than from a replay buffer.
        noise: standard deviation of the noise on every number of an action, by which a deterministic policy explores.
        extra: the extra of this package that installs the class, where it is not in stable-baselines3.
        why_not_within: why the agent cannot set the temperatures of a run in which it learns; None if it can.
    """

    algorithm: str | type[BaseAlgorithm]
    defaults: Callable[[int], dict[str, Any]]
    is_on_policy: bool
    noise: float = 0.0
    extra: str | None = None
    why_not_within: str | None = None

    def load(self) -> type[BaseAlgorithm]:
        """Import the class."""
        if isinstance(self.algorithm, str):
            return import_by_path(self.algorithm, "agent", self.extra)
        return self.algorithm

    def options(self, num_envs: int, updates: int | None = None) -> dict[str, Any]:
        """Return arguments of the class for so many slots, and for so many updates of a run if they are known."""
        options = self.defaults(num_envs)
        if updates is not None and "n_epochs" in options:
            options |= _learned_from_once(options, num_envs, updates)
        return options


def _adopt(agent: Any) -> AgentFamily:
    """Read an algorithm of stable-baselines3's kind; it is set up like the built-in agent it derives from, if any."""
    if isinstance(agent, AgentFamily):
        return agent
    if not (isinstance(agent, type) and issubclass(agent, BaseAlgorithm)):
        raise UsageError("not a subclass of stable_baselines3.common.base_class.BaseAlgorithm")
    families = {family.algorithm: family for family in AGENTS.values()}
    for base in agent.__mro__:
        path = f"{base.__module__.partition('.')[0]}:{base.__name__}"
        if path in families:
            return replace(families[path], algorithm=agent)
    is_on_policy = not issubclass(agent, OffPolicyAlgorithm)
    defaults = partial(_known_defaults, agent, _on_policy if is_on_policy else _off_policy)
    return AgentFamily(agent, defaults, is_on_policy)


def _known_defaults(
    agent: type[BaseAlgorithm], defaults: Callable[[int], dict[str, Any]], num_envs: int
) -> dict[str, Any]:
    """Return those defaults that an algorithm has arguments for."""
    known = inspect.signature(agent).parameters
    return {name: value for name, value in defaults(num_envs).items() if name in known}


AGENTS: Registry[AgentFamily] = Registry(
    "agent",
    {
        "ppo": AgentFamily("stable_baselines3:PPO", _ppo, is_on_policy=True),
        "a2c": AgentFamily("stable_baselines3:A2C", _on_policy, is_on_policy=True),
        "sac": AgentFamily("stable_baselines3:SAC", _maximum_entropy, is_on_policy=False),
        "td3": AgentFamily("stable_baselines3:TD3", _off_policy, is_on_policy=False, noise=0.2),
        "ddpg": AgentFamily("stable_baselines3:DDPG", _off_policy, is_on_policy=False, noise=0.2),
        "tqc": AgentFamily("sb3_contrib:TQC", _maximum_entropy, is_on_policy=False, extra="contrib"),
        "crossq": AgentFamily("sb3_contrib:CrossQ", _maximum_entropy, is_on_policy=False, extra="contrib"),
        "trpo": AgentFamily("sb3_contrib:TRPO", _batched, is_on_policy=True, extra="contrib"),
        "recurrent_ppo": AgentFamily(
            "sb3_contrib:RecurrentPPO",
            _recurrent,
            is_on_policy=True,
            extra="contrib",
            why_not_within="its policy remembers, and so is no function of an instance that could be saved",
        ),
        "ars": AgentFamily(
            "sb3_contrib:ARS",
            _random_search,
            is_on_policy=True,
            extra="contrib",
            why_not_within="it learns from whole runs, several for each of its updates",
        ),
    },
    _adopt,
)


def default_options(name: str | type[BaseAlgorithm], num_envs: int) -> dict[str, Any]:
    """Return the arguments that :func:`make_agent` gives an agent's class for this number of slots."""
    return AGENTS[AGENTS.name_of(name)].options(num_envs)


def check_learns_within(agent: str) -> None:
    """Check that an agent can learn while the run goes on whose temperatures it sets.

    Raises:
        UsageError: if it cannot; the message says why.
    """
    reason = AGENTS[agent].why_not_within
    if reason is not None:
        raise UsageError(
            f"the agent {agent} cannot learn within a run: {reason}. It learns over many runs on the environment, see "
            "agents.sb3.make_agent"
        )


def check_agent_options(agent: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of an agent's class with the types of those that are known here, which include all numbers.

    Raises:
        UsageError: if an argument is unknown, of another type or out of its range.
    """
    parameters = inspect.signature(AGENTS[agent].load().__init__).parameters
    valid = [name for name in parameters if name not in ("self", "env", "_init_setup_model")]
    read = dict(options)
    for name, value in options.items():
        if name not in valid:
            raise unknown_name(f"option of agent {agent!r}", name, valid)
        words = f"agent {agent!r}: {name}"
        if name == "device":
            select_device(str(value))
        if name in _OBJECTS and isinstance(value, str | int | float):
            raise UsageError(f"{words} is an object, which only Python can give")
        if name in _ARGUMENTS and not (value is None or callable(value) or isinstance(value, tuple)):
            is_tuned = name in _TUNED and isinstance(value, str) and value.startswith("auto")
            read[name] = value if is_tuned else read_value(words, value, _ARGUMENTS[name])
    return read
