"""TorchRL: GymEnv by id, its check of environments, and a collector, for whole batches and for 64 slots.

Run ``python examples/clients/torchrl_collector.py``; ``--small`` collects a few frames.
Needs ``pip install -e ".[clients]"``.
"""

from __future__ import annotations

import sys

import gymnasium as gym
import torch
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, GymWrapper, check_env_specs

import rlkd_env  # noqa: F401 (registers the environments)

STEPS = 16 if "--small" in sys.argv else 480


def main() -> None:
    """Check both environments and collect from them with random actions."""
    single = GymEnv("rlkd/Digits-v0", device="cpu")
    slots = gym.make_vec("rlkd/Digits-v0", num_envs=64, autoreset_mode="same_step")
    for name, env in (("batches", single), ("slots", GymWrapper(slots, device="cpu"))):
        check_env_specs(env)
        frames = STEPS * max(env.batch_size.numel(), 1)
        with torch.no_grad():
            collector = Collector(env, None, frames_per_batch=frames // 2, total_frames=frames)
            rewards = torch.cat([batch["next", "reward"].flatten() for batch in collector])
        collector.shutdown()
        print(f"{name}: {len(rewards)} frames, mean reward {rewards.mean():.5f}")


if __name__ == "__main__":
    main()
