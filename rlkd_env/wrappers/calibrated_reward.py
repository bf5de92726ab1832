"""Rewards of single instances from a batch reward that they share, and that may be delayed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from rlkd_env.credit.base import Calibrator, Reference
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.credit.return_decomposition import ReturnDecomposition
from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy
from rlkd_env.wrappers.residual_action import ResidualAction


class CalibratedReward(VectorWrapper, gym.utils.RecordConstructorArgs):
    """Gives every slot its own part of a batch reward that all slots share.

    The reward of an instance is its credit plus whatever the mean credit leaves of the batch reward, so the mean over
    the instances is the batch reward. With a delayed reward (``reward_interval=k``) this holds for the sum over the
    interval: a slot earns its credit at every step, and the rest for the whole interval with the measurement. An update
    that diverges earns no credit, only the penalty.

    Args:
        env: whose slots share one reward and end together. ``return_decomposition`` takes any such environment with Box
            states and actions in ``[-1, 1]``; the others look at a KD run, so
            :class:`~rlkd_env.envs.vector_env.KDVectorEnv`, wrapped or not. With several runs only ``uniform``, where
            every slot earns its run's reward.
        calibrator: a name in :data:`~rlkd_env.credit.create.CALIBRATORS`, ``package.module:name``, or a class.
        reference: temperature that credits are relative to, or a rule that gives it; None takes what the action 0
            is: the geometric mean of the run's range, or the rule that the agent acts around. For
            ``return_decomposition`` it is always the action 0.

    Attributes:
        metrics: ``reward_spread``, the std of the latest credits over the batch, and what a decomposition reports.

    Raises:
        UsageError: if the calibrator is unknown or does not suit the environment.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64)
        >>> _ = envs.reset(seed=0)
        >>> temperatures = np.linspace(1, 8, 64, dtype=np.float32)[:, None]
        >>> _, rewards, *_ = envs.step(temperatures)
        >>> bool(rewards.std() > 0)
        False
        >>> envs = CalibratedReward(envs, "gradient")
        >>> _ = envs.reset(seed=0)
        >>> _, rewards, *_ = envs.step(temperatures)
        >>> bool(rewards.std() > 0)
        True
    """

    @usual_torch_settings()
    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        calibrator: str | type[Calibrator] | type[ReturnDecomposition] = "return_decomposition",
        reference: Reference = None,
    ) -> None:
        name = CALIBRATORS.name_of(calibrator)
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, calibrator=name, reference=reference)
        VectorWrapper.__init__(self, env)
        kind = CALIBRATORS[name]
        base = env.unwrapped
        self._has_several_runs = isinstance(base, KDVectorEnv) and base.num_runs > 1
        self._run = base.run if isinstance(base, KDVectorEnv) and not self._has_several_runs else None
        self.hook: Calibrator | None = None
        self._decomposition: ReturnDecomposition | None = None
        if self._has_several_runs:
            if not kind.takes_several_runs:
                raise UsageError(f"the calibrator {name!r} needs a single run: with num_runs, take uniform")
        elif issubclass(kind, ReturnDecomposition):
            self._decomposition = kind(*_sizes(env))
        elif self._run is None:
            raise UsageError(f"the calibrator {name!r} needs a KDVectorEnv, not {env.unwrapped}")
        elif self._run.num_processes > 1 and kind.forwards_images:
            raise UsageError(
                f"the calibrator {name!r} looks at the whole update, which no process has when several share a run: "
                "choose return_decomposition or uniform"
            )
        else:
            self.hook = kind(self._run, _rule_inside(env) if reference is None else reference)
            self.watch()
        self._unpaid = self._earned = 0.0
        self._resets = True
        self._observation = np.empty(0)
        self.metrics: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment and begin a new interval; what was learned stays."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.start_from(observation)
        return observation, info

    def start_from(self, observation: np.ndarray) -> None:
        """Begin an interval at this observation ``(N, d)``, as after a run that was advanced or restored."""
        self._observation = observation.copy()
        self._unpaid = self._earned = 0.0
        self._resets = False
        if self._decomposition is not None:
            self._decomposition.forget_interval()

    @usual_torch_settings()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment and calibrate its rewards ``(N,)``."""
        if self._has_several_runs:  # each of which has a batch reward of its own
            self.metrics = {"reward_spread": 0.0}
            return self.env.step(actions)
        # The step after an episode's end only starts the next one, and so does the first of an environment that was
        # reset before it was wrapped.
        if self._resets:
            observation, rewards, terminated, truncated, info = self.env.step(actions)
            self.start_from(observation)
            return observation, rewards, terminated, truncated, info
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        found = None  # only now, so that nothing is remembered of actions that the environment refuses
        if self._decomposition is not None:
            found = self._decomposition.credit(self._observation, np.clip(actions, -1.0, 1.0))
        elif self.hook is not None and self.hook.credit is not None:
            found = self.hook.credit.double().cpu().numpy()
        diverged = any(np.any(told.get("diverged", False)) for told in (info, info.get("final_info", {})))
        credit = self._usable(found, diverged)
        calibrated = self._calibrate(credit, float(np.mean(rewards, dtype=np.float64)), learns=not diverged)
        self._observation = observation.copy()
        if bool((terminated | truncated).any()):
            if self.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP:
                self.start_from(observation)
            else:
                self._resets = self.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP
        return observation, calibrated, terminated, truncated, info

    def _calibrate(self, credit: np.ndarray, batch_reward: float, learns: bool) -> np.ndarray:
        """Add to the credits whatever they leave of the interval's reward, once it is measured."""
        self.metrics = {"reward_spread": float(credit.std())}
        self._earned += batch_reward
        self._unpaid += batch_reward - float(credit.mean())
        if self._run is None or self._run.reward.is_measured:
            credit = credit + self._unpaid
            if self._decomposition is not None and learns:
                self._decomposition.learn(self._earned)
            self._unpaid = self._earned = 0.0
        if self._decomposition is not None:
            self.metrics |= self._decomposition.metrics
        return credit.astype(np.float32)

    def _usable(self, credit: np.ndarray | None, diverged: bool) -> np.ndarray:
        if credit is None or diverged or not np.isfinite(credit).all():
            return np.zeros(self.num_envs)
        return credit

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of, and whether it watches its own run, which comes without hooks."""
        return {**self.__dict__, "is_watching": self._is_watching}

    def __setstate__(self, state: dict[str, Any]) -> None:
        was_watching = state.pop("is_watching")
        self.__dict__.update(state)
        if was_watching:
            self.watch()

    @property
    def _is_watching(self) -> bool:
        return self._run is not None and self.hook is not None and self.hook in self._run.hooks

    def watch(self) -> None:
        """Look at every update of the run again, before its other hooks do, after :meth:`pause`."""
        if self._run is not None and self.hook is not None and not self._is_watching:
            self._run.add_hook(self.hook, first=True)

    def pause(self) -> None:
        """Stop looking at the run's updates, which costs time, until :meth:`watch`; no credit is given meanwhile."""
        if self._run is not None and self.hook is not None and self._is_watching:
            self._run.remove_hook(self.hook)

    def close(self, **kwargs: Any) -> None:
        """Stop watching the run and close the environment."""
        self.pause()
        self.env.close(**kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next rewards depend on besides the environment."""
        decomposition = None if self._decomposition is None else self._decomposition.state_dict()
        return {
            "unpaid": self._unpaid,
            "earned": self._earned,
            "resets": self._resets,
            "decomposition": decomposition,
            "hook": {} if self.hook is None else self.hook.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], observation: np.ndarray) -> None:
        """Restore :meth:`state_dict` at the environment's current observation ``(N, d)``."""
        self.start_from(observation)
        self._unpaid, self._earned, self._resets = state["unpaid"], state["earned"], state["resets"]
        if self._decomposition is not None:
            self._decomposition.load_state_dict(state["decomposition"])
        if self.hook is not None:
            self.hook.load_state_dict(state["hook"])


def _rule_inside(env: VectorEnv[Any, Any, Any]) -> Policy | None:
    """Return the rule that actions are around, if they are."""
    while isinstance(env, VectorWrapper):
        if isinstance(env, ResidualAction):
            return env.action_map.around
        env = env.env
    return None


def _sizes(env: VectorEnv[Any, Any, Any]) -> tuple[int, int]:
    """Return how many numbers a state and an action have."""
    states, actions = env.single_observation_space, env.single_action_space
    if not isinstance(states, spaces.Box) or not isinstance(actions, spaces.Box):
        raise UsageError("return_decomposition needs Box states and actions")
    if not (np.all(actions.low == -1.0) and np.all(actions.high == 1.0)):
        raise UsageError(
            "return_decomposition needs actions in [-1, 1]: wrap the environment in TemperatureAction first"
        )
    return int(np.prod(states.shape)), int(np.prod(actions.shape))
