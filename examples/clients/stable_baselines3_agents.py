"""stable-baselines3 and sb3-contrib: every agent by name, stock ones without our help, evaluation and files.

Run ``python examples/clients/stable_baselines3_agents.py``; ``--small`` makes runs of a few updates.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

import rlkd_env  # noqa: F401 (registers the environments)
from agents.sb3 import AGENTS, as_vec_env, make_agent

EPOCHS = 8 if "--small" in sys.argv else 120


def main() -> None:
    """Let every agent learn for a run, one with evaluations between that is saved and goes on, and a stock PPO."""
    for name in AGENTS:
        envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=EPOCHS)
        agent = make_agent(name, envs, seed=0)
        agent.learn(64 * 4 * EPOCHS)
        returns = [f"{episode['r']:.3f}" for episode in agent.ep_info_buffer or []]
        print(f"{name}: returns {', '.join(returns)}")

    def slots() -> gym.vector.VectorEnv:
        return gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=EPOCHS)

    folder = Path(mkdtemp())
    evaluated = VecNormalize(as_vec_env(slots()), training=False, norm_obs=False, norm_reward=False)
    evaluation = EvalCallback(evaluated, n_eval_episodes=2, eval_freq=2 * EPOCHS, verbose=0)
    agent = make_agent("ppo", slots(), seed=0)
    agent.learn(64 * 4 * EPOCHS, callback=evaluation)
    agent.save(folder / "agent")
    stock = PPO("MlpPolicy", as_vec_env(slots()), n_steps=16, batch_size=1024, gamma=0.0, seed=0)
    stock.learn(64 * 4 * EPOCHS)
    agent = PPO.load(folder / "agent", env=as_vec_env(slots()))
    agent.learn(64 * 4 * EPOCHS, reset_num_timesteps=False)
    mean, deviation = evaluate_policy(agent, as_vec_env(slots()), n_eval_episodes=3)
    print(f"return of three runs: {mean:.3f}, standard deviation {deviation:.3f}")


if __name__ == "__main__":
    main()
