"""A stable-baselines3 agent learns on the environment, and its policy is used without the environment.

Run ``python examples/environment_ppo.py``; ``--small`` makes a run of a few updates.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import gymnasium as gym
import torch

import rlkd_env  # noqa: F401 (registers the environments)
from agents.learned import load_policy
from agents.sb3 import export_policy, make_agent
from rlkd_env.wrappers import CalibratedReward

EPOCHS = 10 if "--small" in sys.argv else 120


def main() -> None:
    """Learn during one distillation run of the digits, then save the policy and load it again."""
    slots = gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=EPOCHS)  # slot i is instance i of the batch
    envs = CalibratedReward(slots, "last_layer")  # every slot earns its own part of the batch reward
    agent = make_agent("ppo", envs, seed=0)  # a stock PPO, with defaults for many slots
    run = slots.unwrapped.run
    agent.learn(envs.num_envs * run.total_steps)

    folder = Path(mkdtemp())
    export_policy(agent, run.state.names, slots.unwrapped.action_map).save(folder)
    policy = load_policy(folder)  # a small PyTorch module: no Gymnasium, no stable-baselines3
    logits, labels = torch.randn(5, 10), torch.arange(5)
    print(f"saved in {folder}; temperatures:", policy.temperatures(logits, 3 * logits, labels, progress=0.5))


if __name__ == "__main__":
    main()
