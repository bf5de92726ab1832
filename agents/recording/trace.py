"""A sample of a run's instances: what they were like, which temperatures they got, and what these earned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from rlkd_env.instances.features import FEATURES
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun

TRACE_ROWS = 20_000
_LEAST_INTERVAL = 8
"""The least number of updates for each one that is noted, so that noting costs little."""
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_COLUMNS = {
    "epoch": torch.int32,
    "step": torch.int32,
    "index": torch.int64,
    "label": torch.int32,
    "temperature": torch.float32,
    "teacher_confidence": torch.float32,
    "student_margin": torch.float32,
    "reward": torch.float32,
}


class InstanceTrace(RunHook):
    """Notes whole batches, ``rows`` instances at most, spread evenly over the run without a round trip to the host.

    The updates are divided into stretches of equal length, and one update of each stretch is noted. Its place in the
    stretch follows from the golden ratio, so that it does not fall into step with epochs or anything else periodic.
    """

    def __init__(self, rows: int = TRACE_ROWS) -> None:
        self._rows = rows
        self._awaits_rewards = False
        self._noted: list[dict[str, Any]] = []
        self._earlier: dict[str, Tensor] | None = None

    def is_noted(self, run: DistillationRun | ParallelRuns, step: int) -> bool:
        """Return whether an update, counted from 1, is noted."""
        interval = max(_LEAST_INTERVAL, math.ceil(run.total_steps * run.batch_size / self._rows))
        stretch, position = divmod(step - 1, interval)
        return position == int(interval * (stretch * _GOLDEN_RATIO % 1.0))

    def on_step(self, run: DistillationRun | ParallelRuns, result: StepResult) -> None:
        """Note the update if it is one of the sample; of several runs in lock-step, what it did to one of them."""
        step, outputs = run.step_count, result.outputs
        self._awaits_rewards = self.is_noted(run, step)
        if not self._awaits_rewards:
            return
        noted = {
            "epoch": (step - 1) // run.steps_per_epoch + 1,
            "step": step,
            "index": outputs.indices,
            "label": outputs.labels,
            "temperature": result.temperature.student,
            "teacher_confidence": FEATURES["teacher_performance"].compute(outputs),
            "student_margin": FEATURES["student_uncertainty"].compute(outputs),
            "reward": math.nan,
        }
        self._noted.append(noted)

    def add_rewards(self, rewards: np.ndarray) -> None:
        """Add the instances' own rewards ``(N,)`` of the latest update, if it is noted."""
        if self._awaits_rewards:
            count = len(self._noted[-1]["label"])  # of a run that is shared, this process knows its share
            self._noted[-1]["reward"] = torch.from_numpy(rewards[:count].copy())
            self._awaits_rewards = False

    def tensors(self) -> dict[str, Tensor]:
        """Return the content of ``trace.safetensors``: tensors ``(n,)`` of one length on the CPU.

        ``epoch`` and ``step`` count from 1, ``index`` is that in the training set, ``temperature`` the student's,
        ``teacher_confidence`` the probability of the true class, ``student_margin`` the top-1 minus top-2 probability
        before the update, and ``reward`` the instance's own, NaN if it had none.
        """
        pieces = [_as_columns(noted) for noted in self._noted]
        if self._earlier is not None:
            pieces.insert(0, self._earlier)
        empty = {name: torch.empty(0, dtype=dtype) for name, dtype in _COLUMNS.items()}
        return {name: torch.cat([piece[name] for piece in (empty, *pieces)])[: self._rows] for name in _COLUMNS}

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that was noted, independent of this object from now on."""
        return self.tensors()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self._earlier, self._noted = {name: state[name].clone() for name in _COLUMNS}, []


def _as_columns(noted: dict[str, Any]) -> dict[str, Tensor]:
    """Bring an update's values, some of which all instances share, into the form of the file."""
    count = len(noted["label"])
    return {
        name: torch.as_tensor(noted[name], dtype=dtype, device="cpu").expand(count) for name, dtype in _COLUMNS.items()
    }


class TracedRewards(VectorWrapper):
    """Adds the rewards of an environment whose slots have their own to a trace, as the agent gets them."""

    def __init__(self, env: VectorEnv[Any, Any, np.ndarray], trace: InstanceTrace) -> None:
        super().__init__(env)
        self._trace = trace

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment."""
        result = self.env.step(actions)
        self._trace.add_rewards(result[1])
        return result
