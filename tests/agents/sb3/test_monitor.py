"""Statistics of episodes count runs."""

from __future__ import annotations

import csv
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_envs import BestActions

from agents.sb3.make import make_agent
from agents.sb3.monitor import RunMonitor
from agents.sb3.vec_env import VectorEnvAdapter
from agents.sb3.wrapping import as_vec_env


class Runs(BestActions):
    """Two runs of four slots each; a run earns its number plus that of its episode, shared out unevenly."""

    num_runs = 2

    def __init__(self) -> None:
        super().__init__(num_envs=8, length=3)
        self.episodes = 0

    def step(self, actions: np.ndarray) -> tuple:
        observation, _, terminated, truncated, info = super().step(actions)
        if self.steps == 0:  # which only began the next episode
            return observation, np.zeros(8), terminated, truncated, info
        rewards = (self.episodes + np.repeat([10.0, 20.0], 4)) * np.tile([0.0, 2.0, 0.5, 1.5], 2)
        self.episodes += bool(terminated.all())
        return observation, rewards, terminated, truncated, info


def episodes_of(monitor: RunMonitor, steps: int) -> list[tuple[int, float, int]]:
    """The slots that tell of an episode, with its return and length."""
    found = []
    for _ in range(steps):
        infos = monitor.step(np.zeros((monitor.num_envs, 1), np.float32))[3]
        found += [(slot, *list(info["episode"].values())[:2]) for slot, info in enumerate(infos) if "episode" in info]
    return found


def test_a_run_is_one_episode_which_the_last_slots_tell_of_in_turn() -> None:
    monitor = RunMonitor(VectorEnvAdapter(Runs()))
    monitor.reset()
    assert episodes_of(monitor, 6) == [(3, 30.0, 3), (7, 60.0, 3), (2, 33.0, 3), (6, 63.0, 3)]
    monitor.reset()
    assert [slot for slot, *_ in episodes_of(monitor, 3)] == [3, 7]


def test_a_wrapper_inside_that_counts_slots_is_passed_over() -> None:
    monitor = RunMonitor(VectorEnvAdapter(RecordEpisodeStatistics(Runs())))
    monitor.reset()
    assert episodes_of(monitor, 6) == [(3, 30.0, 3), (7, 60.0, 3), (2, 33.0, 3), (6, 63.0, 3)]


def test_slots_that_are_no_instances_of_a_run_are_episodes_of_their_own() -> None:
    monitor = RunMonitor(VectorEnvAdapter(BestActions(num_envs=2, length=3)))
    monitor.reset()
    assert [(slot, length) for slot, _, length in episodes_of(monitor, 6)] == [(0, 3), (1, 3)] * 2


@pytest.mark.parametrize("runs", [1, 3, 70])
def test_an_evaluation_counts_every_run_once(runs: int) -> None:
    """More than one run a slot too: 70 runs of an environment of 64 slots."""
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=1, device="cpu", reward="train_progress")
    agent = make_agent("ppo", envs, seed=0)
    returns, lengths = evaluate_policy(agent, as_vec_env(envs), n_eval_episodes=runs, return_episode_rewards=True)
    assert len(returns) == runs
    assert len(set(returns)) == runs
    assert lengths == [4] * runs


@pytest.mark.slow
def test_evaluations_between_learning_count_runs_and_follow_the_agent(tmp_path: Path) -> None:
    def slots() -> VecEnv:
        return as_vec_env(gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=2, device="cpu"))

    evaluated = VecNormalize(slots(), training=False, norm_obs=False, norm_reward=False)
    callback = EvalCallback(evaluated, n_eval_episodes=2, eval_freq=8, log_path=str(tmp_path), verbose=0)
    agent = make_agent("ppo", slots(), seed=0)
    agent.learn(64 * 16, callback=callback)
    agent.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=slots())
    again.learn(64 * 16, reset_num_timesteps=False)
    assert again.num_timesteps == 2 * 64 * 16
    results = np.load(tmp_path / "evaluations.npz")["results"]
    assert results.shape == (2, 2)
    assert results.std(axis=1).min() > 0.0


def test_a_file_has_a_line_for_every_run(tmp_path: Path) -> None:
    monitor = RunMonitor(VectorEnvAdapter(Runs()), filename=str(tmp_path / "monitor.csv"))
    monitor.reset()
    episodes_of(monitor, 6)
    monitor.close()
    rows = csv.DictReader((tmp_path / "monitor.csv").read_text().splitlines()[1:])
    assert [float(row["r"]) for row in rows] == [30.0, 60.0, 33.0, 63.0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_log_has_the_curves_that_an_rl_user_looks_for(name: str, tmp_path: Path) -> None:
    envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=8, device="cpu")
    agent = make_agent(name, envs, seed=0, tensorboard_log=str(tmp_path))
    agent.learn(64 * 64)
    (folder,) = tmp_path.iterdir()
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/learning_rate"} <= tags
    assert {"student/loss", "student/validation_accuracy", "temperature/mean", "reward/batch"} <= tags
    assert events.Scalars("rollout/ep_len_mean")[-1].value == 32.0
    assert len(events.Scalars("student/loss")) == 4  # every 16 of 64 updates
