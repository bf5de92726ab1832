"""RL Zoo's training script on an id.

Run ``python examples/clients/zoo_train.py``; ``--small`` makes a few steps. Needs ``pip install -e ".[clients]"``.
It is the command ``python -m rl_zoo3.train --algo ppo --env rlkd/Digits-v0 --gym-packages rlkd_env`` with
hyperparameters, as Zoo has none for ids that it does not know.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

from rl_zoo3.train import train

STEPS = 64 if "--small" in sys.argv else 4800
HYPERPARAMETERS = """
rlkd/Digits-v0:
  n_timesteps: 1000
  policy: MlpPolicy
  n_steps: 32
  batch_size: 32
  gamma: 0.0
"""


def main() -> None:
    """Train for so many steps."""
    folder = Path(mkdtemp())
    (folder / "ppo.yml").write_text(HYPERPARAMETERS)
    arguments = ["--algo", "ppo", "--env", "rlkd/Digits-v0", "--gym-packages", "rlkd_env", "--n-timesteps", str(STEPS)]
    arguments += ["--conf-file", str(folder / "ppo.yml"), "--log-folder", str(folder / "logs"), "--eval-freq", "-1"]
    with mock.patch.object(sys, "argv", ["train", *arguments]):
        train()
    (saved,) = (folder / "logs").rglob("*-v0.zip")
    print(f"agent saved as {saved}")


if __name__ == "__main__":
    main()
