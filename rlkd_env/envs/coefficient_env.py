"""Several KD runs as a vector environment, one slot a run; actions are the coefficients of a temperature rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlkd_env.envs.requests import MAX_SEED, check_options, whole_seed
from rlkd_env.envs.torch_settings import usual_torch_settings
from rlkd_env.errors import UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.runs.parallel import ParallelResult, ParallelRuns
from rlkd_env.utils.choices import DECISIONS


class CoefficientVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """K runs at once, a slot each: slot k is what :class:`~rlkd_env.wrappers.CoefficientAction` makes of run k alone.

    Observation ``Box(K, d)``: the rule's context; action ``Box(K, n)``: its coefficients over ``scale``; reward
    ``(K,)``: the sum of the held updates' rewards. All slots end together, and the step after the end starts the next
    runs (next-step autoreset). A run that diverges earns the penalty, is named in ``info["diverged"]`` at the end, and
    waits for the others without rewards.

    Args:
        runs: the K runs, or several sets of K runs, which take turns episode by episode.
        rule: the rule; None takes that of the usual features.
        decisions: number of actions in a run, each held for an equal part of its updates.
        scale: coefficient at an action of 1, which is positive.

    Raises:
        UsageError: if a run has too few updates for the decisions, the scale is not positive, or the sets differ in
            size.

    Example:
        >>> from rlkd_env.runs import RunConfig, build_run
        >>> from rlkd_env.runs.parallel import create_parallel_runs
        >>> run = build_run(RunConfig.from_keywords(reward="log_probe_loss", reward_interval=24))
        >>> envs = CoefficientVectorEnv(create_parallel_runs(run, 8, "stacked"))
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, envs.action_space.shape
        ((8, 4), (8, 4))
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (Gymnasium's own form)

    @usual_torch_settings()
    def __init__(
        self,
        runs: ParallelRuns | Sequence[ParallelRuns],
        rule: CoefficientRule | None = None,
        decisions: int = DECISIONS,
        scale: float = 0.5,
    ) -> None:
        self._sets = [runs] if isinstance(runs, ParallelRuns) else list(runs)
        self.num_envs = self._sets[0].num_runs
        if any(runs.num_runs != self.num_envs for runs in self._sets):
            raise UsageError("the sets of runs that take turns must have the same number of runs")
        self.rule = rule or CoefficientRule()
        self.scale = check_scale(scale)
        self.decisions = min(check_decisions(decisions, runs.total_steps) for runs in self._sets)
        self.single_observation_space, self.single_action_space = coefficient_spaces(self.rule)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._turn = -1
        self._reset_next = True

    @property
    def runs(self) -> ParallelRuns:
        """The runs of the current episode."""
        return self._sets[self._turn]

    @usual_torch_settings()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start fresh students with the seeds ``seed``, ``seed + 1``, ...; None draws the first from the generator.

        ``options={"turn": i}`` chooses the set of runs; otherwise they take turns, the first one first.
        """
        check_options(options, valid=("turn",))
        super().reset(seed=whole_seed(seed), options=options)
        first = seed if seed is not None else int(self.np_random.integers(MAX_SEED))
        self._turn = (options or {}).get("turn", self._turn + 1) % len(self._sets)
        self._reset_next = False
        self.runs.reset(range(first, first + self.num_envs))
        return self._context(), {}

    @usual_torch_settings()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Update the students for as long as the actions ``(K, n)`` are held, or until the runs end."""
        never = np.zeros(self.num_envs, dtype=bool)
        if self._reset_next:
            observation, info = self.reset()
            return observation, np.zeros(self.num_envs, dtype=np.float32), never, never.copy(), info
        if np.shape(actions) != self.action_space.shape:
            raise ValueError(f"expected actions of shape {self.action_space.shape}, got {np.shape(actions)}")
        reward, result = self._hold(coefficients_of(actions, self.rule, self.scale, self.runs.device))
        terminated = self._reset_next = result.done
        info = {"diverged": result.diverged.cpu().numpy()} if terminated else {}
        return self._context(), reward.cpu().numpy(), np.full(self.num_envs, terminated), never, info

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002
        """End the processes that compute the runs, if there are any."""
        for runs in getattr(self, "_sets", []):  # which an environment that could not be made lacks
            runs.close()

    def _hold(self, coefficients: Tensor) -> tuple[Tensor, ParallelResult]:
        """Return the sum of the rewards ``(K,)`` and the last result of the updates with these coefficients."""
        runs, bounds = self.runs, self.runs.template.temperature_range
        total = torch.zeros(self.num_envs, device=runs.device)
        end = next_decision(runs.step_count, runs.total_steps, self.decisions)
        while runs.step_count < end:
            result = runs.step(self.rule.temperature(coefficients, runs.outputs, bounds))
            total += result.reward
            if result.done:
                break
        return total, result

    def _context(self) -> np.ndarray:
        return self.rule.context(self.runs.outputs).cpu().numpy()


def check_decisions(decisions: int, total_steps: int) -> int:
    """Return the number of decisions a run."""
    if not 1 <= decisions <= total_steps:
        raise UsageError(f"a run of {total_steps} updates has room for 1 to {total_steps} decisions, not {decisions}")
    return decisions


def next_decision(step: int, total_steps: int, decisions: int) -> int:
    """Return the update before which the action chosen at ``step`` changes; all are held equally long."""
    number = step * decisions // total_steps + 1
    return -(-total_steps * number // decisions)


def check_scale(scale: float) -> float:
    """Return the coefficient at an action of 1."""
    if not scale > 0:
        raise UsageError(f"the scale of coefficients must be positive, not {scale:g}")
    return scale


def coefficient_spaces(rule: CoefficientRule) -> tuple[spaces.Box, spaces.Box]:
    """Return the spaces of a run's observations ``(d,)`` and actions ``(n,)``."""
    observation = spaces.Box(-1.0, 1.0, (len(rule.context_names),), dtype=np.float32)
    return observation, spaces.Box(-1.0, 1.0, (rule.num_coefficients,), dtype=np.float32)


def coefficients_of(actions: np.ndarray, rule: CoefficientRule, scale: float, device: torch.device) -> Tensor:
    """Return the coefficients ``(K, n)`` on the device of actions ``(K, n)``, which are clipped to ``[-1, 1]``."""
    values = np.asarray(actions, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != rule.num_coefficients:
        raise ValueError(f"expected actions of {rule.num_coefficients} coefficients, got the shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("an action is not a number")
    return torch.from_numpy(scale * values.clip(-1.0, 1.0)).to(device)
