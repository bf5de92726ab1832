"""The lines below the table of a finished run."""

from __future__ import annotations

import pytest

from experiments.session.telling.table import cost_of_agent


@pytest.mark.parametrize(("step", "expected"), [(2.5, "which costs 1.50 ms"), (0.9, "too little"), (1.0, "too little")])
def test_an_agent_is_not_told_to_save_time(step: float, expected: str) -> None:
    told = cost_of_agent({"fixed_step_ms": 1.0, "step_ms": step, "temperature_from": "ppo"})
    assert told is not None
    assert told.startswith(f"an update takes 1.00 ms in the warm-up and {step:.2f} ms with ppo, ")
    assert expected in told


def test_without_a_warm_up_an_agent_has_no_cost_to_tell() -> None:
    assert cost_of_agent({"fixed_step_ms": None, "step_ms": 2.0, "temperature_from": "ppo"}) is None
