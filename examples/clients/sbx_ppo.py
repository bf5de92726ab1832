"""sbx, stable-baselines3's agents in JAX, on the slots of a run.

Run ``python examples/clients/sbx_ppo.py``; ``--small`` makes a run of a few updates.
Needs ``pip install -e ".[clients]"``.
"""

from __future__ import annotations

import sys

import gymnasium as gym
from sbx import PPO, SAC

import rlkd_env  # noqa: F401 (registers the environments)
from agents.sb3 import as_vec_env

EPOCHS = 4 if "--small" in sys.argv else 120


def main() -> None:
    """Let two of its agents learn for a run."""
    for algorithm, options in ((PPO, {"n_steps": 16, "batch_size": 1024}), (SAC, {"learning_starts": 640})):
        envs = as_vec_env(gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=EPOCHS))
        agent = algorithm("MlpPolicy", envs, gamma=0.0, seed=0, **options)
        agent.learn(64 * 4 * EPOCHS)
        print(f"{algorithm.__name__}: {list(agent.ep_info_buffer or [])}")


if __name__ == "__main__":
    main()
