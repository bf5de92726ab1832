"""What drives a run, or several in lock-step, from the first update to the last: here, a frozen policy or rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from agents.learned.temperature_policy import TemperaturePolicy
from experiments.session.records import Records
from rlkd_env.instances.temperature import Policy
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun

SafePoint = Callable[[], None]  # is called where the run may be saved and stopped


class Phases(ABC):
    """Drives a run, or several in lock-step, through its phases.

    ``warmup_steps`` are the updates before an agent takes over, ``warmup_seconds`` the time that the environment took
    in them.
    """

    learns = False
    warmup_steps = 0

    def __init__(self, run: DistillationRun | ParallelRuns, records: Records) -> None:
        self._run, self._records = run, records
        self.warmup_seconds = 0.0

    @abstractmethod
    def execute(self, safe_point: SafePoint) -> None:
        """Make all updates that are left."""

    @abstractmethod
    def acting_policy(self) -> Policy:
        """Return what chooses the temperatures at this point of the run, without learning."""

    def learned_policy(self) -> TemperaturePolicy | None:
        """Return the policy that has been learned so far, on the CPU; None if nothing is learned."""
        return None

    def scalars(self) -> dict[str, float]:
        """Return figures for TensorBoard by tag, read at the end of every epoch."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the run depends on beside the run itself."""
        return {"warmup_seconds": self.warmup_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` with the run restored."""
        self.warmup_seconds = state["warmup_seconds"]

    def _advance(self, policy: Policy, end: int, safe_point: SafePoint) -> None:
        """Step with a policy up to an update of the run, epoch by epoch."""
        run = self._run
        while run.step_count < end and not self._records.is_over:
            safe_point()
            with self._records.timer.part("environment"):
                run.advance(policy, min(self._to_epoch_end(), end - run.step_count))

    def _to_epoch_end(self) -> int:
        return self._run.steps_per_epoch - self._run.step_count % self._run.steps_per_epoch


class PolicyPhases(Phases):
    """A policy or rule sets all temperatures; ``find_policy`` returns it once the run is started."""

    def __init__(
        self, run: DistillationRun | ParallelRuns, records: Records, find_policy: Callable[[], Policy]
    ) -> None:
        super().__init__(run, records)
        self._find_policy = find_policy

    def execute(self, safe_point: SafePoint) -> None:
        """Make all updates that are left."""
        self._advance(self.acting_policy(), self._run.total_steps, safe_point)

    def acting_policy(self) -> Policy:
        """Return the policy."""
        return self._find_policy()
