"""The paper's efficient exploration around a vector environment."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Explorer
from rlkd_env.sampling.settings import Exploration


class EfficientExploration(
    VectorWrapper,  # without type arguments, which it takes from Gymnasium 1.4 on
    gym.utils.RecordConstructorArgs,
):
    """Fills the batches of some epochs with instances that the agent learns a lot from (arXiv 2407.00115).

    The images are ranked by the mean entropy of the student's predictions so far. In the exploring epochs, uncertain
    images are mixed into confident ones, pixels and labels alike, and every slot holds such a mix. Spaces and episodes
    stay as they are. The explorer belongs to the run, so the run's state and its forks hold the history.

    Args:
        env: a :class:`~rlkd_env.envs.vector_env.KDVectorEnv`, wrapped or not.
        exploration: ranks, shares and epochs; None takes the paper's.

    Raises:
        UsageError: if there is no such environment inside, or the exploration begins after the run's end.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64, epochs=40)
        >>> envs = EfficientExploration(envs, Exploration(first_epoch=10, last_epoch=30, interval=1))
        >>> envs.explorer.settings.explores(10)
        True
    """

    @usual_torch_settings()
    def __init__(
        self, env: VectorEnv[np.ndarray, np.ndarray, np.ndarray], exploration: Exploration | None = None
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, exploration=exploration)
        super().__init__(env)
        if not isinstance(env.unwrapped, KDVectorEnv):
            raise UsageError(f"efficient exploration needs a KDVectorEnv, not {type(env.unwrapped).__name__}")
        self.explorer = explore(env.unwrapped.run, exploration or Exploration())


def explore(run: DistillationRun, settings: Exploration) -> Explorer:
    """Let an explorer choose a run's batches; the run must be reset or restored afterwards."""
    if run.sampler is not None and not isinstance(run.sampler, Explorer):
        raise UsageError("exploration and a curriculum both choose the images: switch one of them off")
    if settings.first_epoch > run.recipe.epochs:
        raise UsageError(
            f"exploration begins in epoch {settings.first_epoch}, but the run ends with epoch {run.recipe.epochs}"
        )
    explorer = Explorer(settings, len(run.splits.train), run.device)
    run.use_sampler(explorer)
    return explorer
