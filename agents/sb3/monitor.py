"""Statistics of episodes that count runs, although the slots of a run are many."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from agents.sb3.vec_env import VectorEnvAdapter

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_STEPS_A_LOG = 16
"""Steps from one line of an off-policy agent's log to the next, as many as PPO's rollouts have."""
_SUSPICIOUS_STEPS = 16
"""Steps in which all slots earn the same before somebody is told."""
_GROUPS = {"loss": "student", "probe": "student", "validation": "student"}
"""The group of curves of a figure of ``info``, by the first word of its name."""
_TEMPERATURES = {"temperature": "temperature/mean", "teacher_temperature": "temperature/teacher_mean"}


class RunMonitor(VecMonitor):
    """A ``VecMonitor`` for which an episode is a run, not one of the slots that share it.

    At the end of a run, one of its slots has the run's return, the mean over its slots, and its length in
    ``info["episode"]``. It is the last slot, the last but one for the next run, and so on: stable-baselines3's
    ``evaluate_policy`` shares out the episodes that it asks for among slots from the last one on, and so counts every
    run once. Therefore mean and standard deviation of ``n_eval_episodes=5`` are those of five runs, and
    ``rollout/ep_rew_mean`` is the mean over runs.

    Args:
        venv: whose slots stand one run after the other.
        num_runs: number of runs, each of as many slots; None takes what the environment has as ``num_runs``, and every
            slot as a run of its own where it has nothing of the kind.
        warns_of_shared_rewards: warn once if all slots earn the same, step by step.
        filename: where a line for every run is written, see ``VecMonitor``.
    """

    def __init__(
        self,
        venv: VecEnv,
        num_runs: int | None = None,
        warns_of_shared_rewards: bool = False,
        filename: str | None = None,
    ) -> None:
        super().__init__(venv, filename)
        self.num_runs = _runs_of(venv) if num_runs is None else num_runs
        self._slots = venv.num_envs // self.num_runs
        self._warns = warns_of_shared_rewards and venv.num_envs > 1
        self._agent: BaseAlgorithm | None = None
        self._restart()

    def record_for(self, agent: BaseAlgorithm) -> None:
        """Put figures of student, temperatures and rewards into an agent's log, beside its own.

        Off-policy agents write their log at the ends of episodes alone, of which a run is one; here they do so more
        often.
        """
        self._agent = agent

    def reset(self) -> VecEnvObs:
        """Reset all slots, of which the last are the first that tell of an episode."""
        observation = super().reset()
        self._restart()
        return observation

    def _restart(self) -> None:
        self._returns = np.zeros(self.num_runs)
        self._lengths = np.zeros(self.num_runs, dtype=int)
        self._finished = np.zeros(self.num_runs, dtype=int)
        self._shared: list[float] = []

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and count the step for every run."""
        observation, rewards, dones, infos = self.venv.step_wait()
        by_run = rewards.reshape(self.num_runs, self._slots)
        self._returns += by_run.mean(axis=1)
        self._lengths += 1
        if self._warns and rewards.any():
            self._look_at(rewards)
        if self._agent is not None and getattr(self._agent, "_logger", None) is not None:
            self._record(self._agent, by_run, infos)
        for run in np.flatnonzero(dones.reshape(self.num_runs, self._slots)[:, 0]):
            first, told_by = run * self._slots, self._slots - 1 - self._finished[run] % self._slots
            for info in infos[first : first + self._slots]:
                info.pop("episode", None)  # of somebody who counts slots
            infos[first + told_by]["episode"] = self._end(run)
        return observation, rewards, dones, infos

    def _end(self, run: np.integer[Any]) -> dict[str, float]:
        """Return what is told of a run that is over, and begin the next one."""
        told = {
            "r": float(self._returns[run]),
            "l": int(self._lengths[run]),
            "t": round(time.time() - self.t_start, 6),
        }
        self._returns[run], self._lengths[run] = 0.0, 0
        self._finished[run] += 1
        self.episode_count += 1
        if self.results_writer is not None:
            self.results_writer.write_row(told)
        return told

    def _look_at(self, rewards: np.ndarray) -> None:
        """Warn if all slots earn the same, step by step, and not the same in all steps."""
        self._shared = [*self._shared, float(rewards[0])] if np.all(rewards == rewards[0]) else []
        if len(self._shared) >= _SUSPICIOUS_STEPS and len(set(self._shared)) > 1:
            self._warns = False
            warnings.warn(
                "all slots earn the same reward, from which an agent learns little within a run: wrap the vector "
                "environment in rlkd_env.wrappers.CalibratedReward, which shares it out among them, or make the agent "
                'with calibrator="uniform" if this is meant',
                stacklevel=2,
            )

    def _record(self, agent: BaseAlgorithm, rewards: np.ndarray, infos: list[dict[str, Any]]) -> None:
        logger = agent.logger
        logger.record_mean("reward/batch", float(rewards.mean()))
        logger.record_mean("reward/deviation_in_batch", float(rewards.std(axis=1).mean()))
        for info in infos[:: self._slots]:
            for tag, value in _curves(info).items():
                logger.record_mean(tag, value)
        if isinstance(agent, OffPolicyAlgorithm) and self._lengths[0] % _STEPS_A_LOG == 0:
            agent.dump_logs()


def _runs_of(venv: VecEnv) -> int:
    """Return the number of runs that an environment's slots belong to."""
    while isinstance(venv, VecEnvWrapper):
        venv = venv.venv
    base = venv.env.unwrapped if isinstance(venv, VectorEnvAdapter) else venv
    return int(getattr(base, "num_runs", venv.num_envs))


def _curves(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a step's ``info`` by the tags of their curves."""
    found = {}
    for name, value in info.items():
        tag = _TEMPERATURES.get(name)
        group = _GROUPS.get(name.partition("_")[0])
        if tag is not None or group is not None:
            found[tag or f"{group}/{name}"] = float(value)
    return found
