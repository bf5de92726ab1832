"""A stock agent learns to choose coefficients, over many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.sb3.checkpoint import agent_state, load_agent_state
from agents.sb3.divergence import noticing_divergence
from agents.sb3.export import export_coefficient_policy
from agents.sb3.families import check_agent_options, check_learns_within, default_options
from agents.sb3.make import continue_from, make_agent
from rlkd_env.envs.coefficient_env import CoefficientVectorEnv
from rlkd_env.utils.randomness import load_random_state, random_state

_MINIBATCHES = 4
"""Minibatches of a rollout, which is an episode of every run."""


class CoefficientTraining:
    """Learning from whole episodes, one of the environment's sets of runs after the other.

    The ``seeds`` are those that the runs of each set may have, ``options`` are arguments of the agent's class, and
    ``seed`` is that of the agent and of the choice of seeds.
    """

    def __init__(
        self,
        name: str,
        env: CoefficientVectorEnv,
        seeds: Sequence[range],
        discount: float,
        options: dict[str, Any],
        seed: int,
    ) -> None:
        check_learns_within(name)
        self._env, self._seeds, self._seed = env, seeds, seed
        self._recorded = RecordEpisodeStatistics(env, buffer_length=env.num_envs)
        defaults = default_options(name, env.num_envs)
        whole_episodes = {"n_steps": env.decisions, "batch_size": max(2, env.num_envs * env.decisions // _MINIBATCHES)}
        chosen: dict[str, Any] = {"gamma": discount, "seed": seed}
        if "n_steps" in defaults:
            chosen |= {argument: value for argument, value in whole_episodes.items() if argument in defaults}
        check_agent_options(name, options)  # names that are arguments of make_agent are no options of an agent's class
        chosen |= options
        self._agent = make_agent(name, self._recorded, **chosen)
        self.generation = 0

    def update(self) -> dict[str, float]:
        """Let the agent act and learn for an episode of all runs; return its figures.

        Raises:
            AgentDiverged: if the agent's networks hold no usable numbers any more.
        """
        turn = self.generation % len(self._seeds)
        seeds, count = self._seeds[turn], self._env.num_envs
        draws = np.random.default_rng([self._seed, self.generation])
        first = int(draws.integers(seeds.start, max(seeds.start + 1, seeds.stop - count)))
        observation, _ = self._recorded.reset(seed=first, options={"turn": turn})
        continue_from(self._agent, observation)
        with noticing_divergence(self._agent):
            self._agent.learn(count * self._env.decisions, reset_num_timesteps=False)
        self.generation += 1
        return {"return": float(np.mean(self._recorded.return_queue))}

    def policy(self) -> CoefficientPolicy:
        """Return the agent's policy without its exploration."""
        return export_coefficient_policy(self._agent, self._env.rule, self._env.scale)

    def state_dict(self) -> dict[str, Any]:
        """Return agent and generators, for an agent that goes on as if it had not been stopped."""
        return {"generation": self.generation, "agent": agent_state(self._agent), "random": random_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.generation = state["generation"]
        load_agent_state(self._agent, state["agent"])
        load_random_state(state["random"])
