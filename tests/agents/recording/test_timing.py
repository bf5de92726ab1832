"""The timer of parts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agents.recording.timing import PartTimer


def test_the_timer_counts_every_second_once() -> None:
    timer = PartTimer()
    started = time.perf_counter()
    with timer.part("outer"):
        time.sleep(0.02)
        with timer.part("inner"):
            time.sleep(0.05)
        time.sleep(0.02)
    total = time.perf_counter() - started
    assert timer.seconds["inner"] == pytest.approx(0.05, abs=0.02)
    assert timer.seconds["outer"] == pytest.approx(0.04, abs=0.02)
    assert sum(timer.seconds.values()) == pytest.approx(total, abs=0.002)


def test_a_part_that_fails_is_counted_and_left() -> None:
    timer = PartTimer()

    def fail() -> Any:
        with timer.part("outer"), timer.part("inner"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert set(timer.seconds) == {"outer", "inner"}
    assert timer._parts == []


def test_each_of_several_runs_has_an_equal_share() -> None:
    whole, share = PartTimer(), PartTimer(4)
    with whole.part("environment"), share.part("environment"):
        time.sleep(0.02)
    assert share.seconds["environment"] == pytest.approx(whole.seconds["environment"] / 4, rel=0.2)
