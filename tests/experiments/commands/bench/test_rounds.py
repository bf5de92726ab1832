"""Turns of two arms, on a clock that only they advance."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from experiments.commands.bench.rounds import Arm, Budget, LeftOut, measure_in_turns

CPU = torch.device("cpu")
AMPLE = Budget(fair_end=1e9, deadline=1e9)


class Clock:
    """Tells a time that passes only while something is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.made: list[tuple[str, int]] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def takes(self, name: str, seconds: float, first: float = 0.0) -> Callable[[int], None]:
        """Return what takes so many seconds an update, and some more for the first time."""
        extra = [first]

        def advance(steps: int) -> None:
            self.made.append((name, steps))
            self.now += steps * seconds + (extra.pop() if extra else 0.0)

        return advance


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_both_take_turns_and_what_warms_up_does_not_count(clock: Clock) -> None:
    arm = Arm.of(clock.takes("arm", 0.02, first=5.0), unit=4)
    rounds = measure_in_turns(arm, Arm.of(clock.takes("plain", 0.01, first=5.0)), AMPLE, CPU)
    np.testing.assert_allclose(rounds.arm, 0.02)
    np.testing.assert_allclose(rounds.baseline, 0.01)
    assert [name for name, _ in clock.made[4:]] == ["arm", "plain", "plain", "arm"] * 3 + ["arm", "plain"]


def test_turns_take_a_third_of_a_second_in_whole_units(clock: Clock) -> None:
    arm, plain = Arm.of(clock.takes("arm", 0.02), unit=4), Arm.of(clock.takes("plain", 0.01))
    assert measure_in_turns(arm, plain, AMPLE, CPU).steps == 12
    assert clock.made[-1] == ("plain", 29)  # 0.3 / 0.01 is just below 30
    slow = Arm.of(clock.takes("slow", 1.0), unit=4)
    assert measure_in_turns(slow, plain, AMPLE, CPU).steps == 4


def test_with_little_time_there_are_three_short_rounds(clock: Clock) -> None:
    arm, plain = Arm.of(clock.takes("arm", 0.01)), Arm.of(clock.takes("plain", 0.01))
    rounds = measure_in_turns(arm, plain, Budget(fair_end=0.6, deadline=10.0), CPU)
    assert len(rounds.arm) == len(rounds.baseline) == 3
    assert rounds.steps < 30
    assert clock.now == pytest.approx(0.6, abs=0.1)


def test_rounds_that_cannot_be_over_in_time_are_not_begun(clock: Clock) -> None:
    arm, plain = Arm.of(clock.takes("arm", 1.0)), Arm.of(clock.takes("plain", 1.0))
    with pytest.raises(LeftOut, match="6 s more"):
        measure_in_turns(arm, plain, Budget(fair_end=2.0, deadline=5.0), CPU)
    assert len(clock.made) == 2
    given = Budget(fair_end=2.0, deadline=5.0, rounds=4, steps=2)
    assert len(measure_in_turns(arm, plain, given, CPU).arm) == 4
    assert clock.made[-1][1] == 2


def test_the_phases_of_an_arm_count_by_their_shares(clock: Clock) -> None:
    arm = Arm([(0.05, clock.takes("learning", 0.5)), (0.95, clock.takes("acting", 0.1))], unit=16)
    rounds = measure_in_turns(arm, Arm.of(clock.takes("plain", 0.1)), AMPLE, CPU)
    np.testing.assert_allclose(rounds.arm, 0.05 * 0.5 + 0.95 * 0.1)
