"""Timing: an arm and plain KD take turns, as many and as long ones as there is time for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

_LEAST_ROUNDS, _MOST_ROUNDS = 3, 7
_TURN_SECONDS = 0.3


class LeftOut(Exception):  # noqa: N818 (not an error: an arm that does not suit the run or the time)
    """Why an arm is not measured."""


@dataclass
class Arm:
    """Something whose updates are timed.

    Attributes:
        phases: what makes a number of updates, each with its share of all of them.
        unit: updates that belong together, such as a rollout; turns are whole numbers of it.
        students: students that an update trains at once.
    """

    phases: list[tuple[float, Callable[[int], object]]]
    unit: int = 1
    students: int = 1

    @classmethod
    def of(cls, advance: Callable[[int], object], unit: int = 1, students: int = 1) -> Arm:
        """Return an arm of a single phase."""
        return cls([(1.0, advance)], unit, students)


@dataclass(frozen=True)
class Budget:
    """When an arm should be over, when everything must be, by ``time.perf_counter()``, and what is given.

    Given may be the number of rounds, which then take as long as they take, and that of updates in a turn.
    """

    fair_end: float
    deadline: float
    rounds: int | None = None
    steps: int | None = None


@dataclass
class Rounds:
    """Seconds of an update of an arm and of plain KD, round by round, and the arm's updates in each turn."""

    arm: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    steps: int = 1


def measure_in_turns(arm: Arm, baseline: Arm, budget: Budget, device: torch.device) -> Rounds:
    """Let both take turns after a turn for warming up.

    There are at least 3 rounds, and up to 7 if there is time; a turn takes about 0.3 s, or a whole unit of the arm.

    Raises:
        LeftOut: if 3 rounds would not be over before the deadline.
    """
    for _ in range(2):  # what is allocated, compiled or captured at first is no part of an update
        unit = _turn(arm, arm.unit, device)[1]
        plain = _turn(baseline, baseline.unit, device)[1]
        least = _LEAST_ROUNDS * (unit + plain)
        if _left(budget.fair_end) < 2 * least:
            break
    if budget.rounds is None and _left(budget.deadline) < least:
        raise LeftOut(f"its rounds would take {least:.0f} s more: give more --seconds")
    turn = min(_TURN_SECONDS, max(_left(budget.fair_end), 0.0) / (2 * _LEAST_ROUNDS))
    rounds = Rounds(steps=budget.steps or arm.unit * max(1, int(turn / unit)))
    plain_steps = budget.steps or max(1, int(turn / plain))
    while len(rounds.arm) < (budget.rounds or _MOST_ROUNDS):
        turns = [(baseline, plain_steps, rounds.baseline), (arm, rounds.steps, rounds.arm)]
        started = time.perf_counter()
        for one, steps, seconds in turns if len(rounds.arm) % 2 else reversed(turns):
            seconds.append(_turn(one, steps, device)[0])
        took = time.perf_counter() - started
        if budget.rounds is None and len(rounds.arm) >= _LEAST_ROUNDS and _left(budget.fair_end) < took:
            break
    return rounds


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _turn(arm: Arm, steps: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of an update, the mean over the phases by their shares, and of the whole turn."""
    of_update = whole = 0.0
    for share, advance in arm.phases:
        wait_for(device)
        started = time.perf_counter()
        advance(steps)
        wait_for(device)
        seconds = time.perf_counter() - started
        of_update += share * seconds / steps
        whole += seconds
    return of_update, whole


def _left(moment: float) -> float:
    return moment - time.perf_counter()
