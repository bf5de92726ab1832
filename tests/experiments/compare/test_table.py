"""The tables that a comparison prints."""

from __future__ import annotations

import pytest

from experiments.compare.analysis import analyze
from experiments.compare.rows import Row
from experiments.compare.table import print_tables


def test_arms_are_in_the_order_of_their_means_with_intervals_and_marks(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row(arm, "digits", seed, accuracy + 0.01 * seed, accuracy, 3, seconds, mean_temperature=4.0)
        for arm, accuracy, seconds in (("T=4", 0.8, 2.0), ("T=8", 0.81, 2.0), ("ppo", 0.85, 3.0))
        for seed in range(3)
    ]
    rows[-1] = Row("ppo", "digits", 2, error="out of memory")
    print_tables(analyze(rows, {"digits": ["T=4", "T=8"]}, "T=4"))
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if line.strip().startswith(("ppo", "T="))]
    assert [line.split()[0] for line in lines] == ["ppo", "T=8", "T=4"] * 2
    assert "ppo (1 failed)" in lines[0]
    assert "85.50 (79.15 to 91.85)" in lines[0]  # Student's t of two runs: 12.706 times 0.5 points
    assert "+5.00" in lines[0]
    assert "1.50 ×" in lines[0]
    assert "digits, last epoch: test accuracy in %" in told
    assert "digits, best epoch on validation: test accuracy in %" in told
    assert "over best fixed (T=8)" in told
    assert "Seeds per arm: 3" in told
