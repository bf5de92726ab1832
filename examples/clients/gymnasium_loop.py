"""Gymnasium alone: its checkers, its own vector environments and wrappers, and a random agent.

Run ``python examples/clients/gymnasium_loop.py``; ``--small`` makes a run of a few updates.
"""

from __future__ import annotations

import sys

import gymnasium as gym
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import rlkd_env  # noqa: F401 (registers the environments)

EPOCHS = 2 if "--small" in sys.argv else 120


def main() -> None:
    """Check the environment, and act at random in slots, in whole runs side by side and in a single one."""
    check_env(gym.make("rlkd/Digits-v0", epochs=1).unwrapped, skip_render_check=True)
    for mode, count in ((None, 64), ("sync", 2), ("async", 2)):
        envs = gym.make_vec("rlkd/Digits-v0", num_envs=count, vectorization_mode=mode, epochs=EPOCHS)
        envs = RecordEpisodeStatistics(envs)
        envs.reset(seed=0)
        over = False
        while not over:
            *_, terminated, truncated, info = envs.step(envs.action_space.sample())
            over = bool((terminated | truncated).all())
        print(f"{mode or 'slots'}: return {info['episode']['r'][0]:.3f} after {info['episode']['l'][0]} updates")
        envs.close()


if __name__ == "__main__":
    main()
