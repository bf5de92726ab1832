"""Tianshou's high-level PPO on an id.

Run ``python examples/clients/tianshou_ppo.py``; ``--small`` makes a few steps.
Needs ``pip install -e ".[clients]"``.
"""

from __future__ import annotations

import os
import sys
from tempfile import mkdtemp

from tianshou.highlevel.config import OnPolicyTrainingConfig
from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
from tianshou.highlevel.experiment import ExperimentConfig, PPOExperimentBuilder

import rlkd_env  # noqa: F401 (registers the environments)

STEPS = 64 if "--small" in sys.argv else 4800


def main() -> None:
    """Train for an epoch of so many steps, and test on one run."""
    os.chdir(mkdtemp())  # Tianshou writes its log here
    envs = EnvFactoryRegistered(task="rlkd/DigitsFlat-v0", venv_type=VectorEnvType.DUMMY, epochs=4)
    training = OnPolicyTrainingConfig(
        max_epochs=1,
        epoch_num_steps=STEPS,
        num_training_envs=2,
        num_test_envs=1,
        batch_size=64,
        collection_step_num_env_steps=32,
        update_step_num_repetitions=2,
    )
    config = ExperimentConfig(persistence_enabled=False, watch=False)
    result = PPOExperimentBuilder(envs, config, training).build().run()
    print(result.trainer_result)


if __name__ == "__main__":
    main()
